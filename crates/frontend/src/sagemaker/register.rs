//! What `POST /models` and `GET /models` say, checked without touching anything: bodies, urls, pages.

use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use inference::{Error, RegisteredModel, Result};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// The most models that one page lists.
pub(super) const MAX_PAGE: usize = 1000;
/// How many a page lists when the caller does not say.
const PAGE: usize = 100;

/// A model that the platform wants loaded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(super) name: String,
    pub(super) directory: PathBuf,
}

#[derive(Deserialize)]
struct Body {
    model_name: Option<String>,
    url: Option<String>,
}

/// Reads the body of `POST /models`. `url` must lie below one of `roots`; it is judged as text, and links below the roots
/// are the platform's business.
///
/// # Errors
/// InvalidArgument.
pub(crate) fn parse(body: &[u8], roots: &[PathBuf]) -> Result<Registration> {
    let example = r#"{"model_name": "…", "url": "/opt/ml/models/…/model"}"#;
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| Error::invalid_argument(format!("the body is not like {example}: {error}")))?;
    let missing = |what: &str| Error::invalid_argument(format!("the body has no '{what}'; expected {example}"));
    let name = body.model_name.filter(|name| !name.is_empty()).ok_or_else(|| missing("model_name"))?;
    let url = body.url.filter(|url| !url.is_empty()).ok_or_else(|| missing("url"))?;
    let directory = PathBuf::from(&url);
    let plain = directory.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !plain || !directory.is_absolute() || url.contains('\0') {
        return Err(Error::invalid_argument(format!("url {url:?} is not an absolute path without '..'")));
    }
    if !roots.iter().any(|root| directory.starts_with(root) && directory != *root) {
        let roots: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
        return Err(Error::invalid_argument(format!("url {url:?} is outside of what is allowed: below {roots:?}")));
    }
    Ok(Registration { name, directory })
}

/// A model as the list shows it.
#[derive(Serialize, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    model_name: String,
    model_url: String,
}

impl From<&RegisteredModel> for Entry {
    fn from(model: &RegisteredModel) -> Self {
        let shown = Path::new(&model.url);
        let shown = match (shown.file_name(), shown.parent()) {
            (Some(last), Some(parent)) if last == "model" => parent,
            _ => shown,
        };
        Entry { model_name: model.name.clone(), model_url: shown.display().to_string() }
    }
}

/// One page of the list.
#[derive(Serialize, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    models: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// The page that a query (`limit`, `next_page_token`) asks for. A token holds the last name that was listed, so that models
/// that come and go in between neither repeat nor hide others.
///
/// # Errors
/// InvalidArgument for a token that is not one of ours, or a limit that is not a number from 1 on.
pub(crate) fn page(models: &[RegisteredModel], query: &str) -> Result<Page> {
    let after = value(query, "next_page_token").map(|token| decode(&token)).transpose()?;
    let limit = value(query, "limit").map_or(Ok(PAGE), |limit| {
        let limit = limit.parse().ok().filter(|limit| *limit > 0);
        limit.ok_or_else(|| Error::invalid_argument("limit is not a number from 1 on"))
    })?;
    let start = after.map_or(0, |after| models.partition_point(|model| model.name <= after));
    let rest = &models[start..];
    let listed = &rest[..rest.len().min(limit.min(MAX_PAGE))];
    let more = rest.len() > listed.len();
    let next_page_token = listed.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(&last.name));
    Ok(Page { models: listed.iter().map(Entry::from).collect(), next_page_token })
}

fn decode(token: &str) -> Result<String> {
    let name = URL_SAFE_NO_PAD.decode(token).ok().and_then(|name| String::from_utf8(name).ok());
    name.ok_or_else(|| Error::invalid_argument("next_page_token is not one that this server gave out"))
}

fn value(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, value)| *key == name && !value.is_empty())?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_checked_before_anything_is_touched() {
        let roots = [PathBuf::from("/opt/ml/models")];
        let parse = |body: &str| parse(body.as_bytes(), &roots);
        let good = parse(r#"{"model_name":"abc","url":"/opt/ml/models/abc/model","more":1}"#).expect("valid");
        let directory = PathBuf::from("/opt/ml/models/abc/model");
        assert_eq!(good, Registration { name: "abc".to_owned(), directory });
        let cases = [
            ("{", "the body is not like"),
            ("[]", "the body is not like"),
            ("{\"model_name\":1,\"url\":\"/x\"}", "the body is not like"),
            ("{}", "no 'model_name'"),
            (r#"{"model_name":"a"}"#, "no 'url'"),
            (r#"{"model_name":"a","url":"opt/ml/models/a"}"#, "not an absolute path"),
            (r#"{"model_name":"a","url":"/opt/ml/models/../../etc"}"#, "not an absolute path"),
            (r#"{"model_name":"a","url":"/etc"}"#, "outside of what is allowed"),
            (r#"{"model_name":"a","url":"/opt/ml/models"}"#, "outside of what is allowed"),
            (r#"{"model_name":"a","url":"/opt/ml/models2/a"}"#, "outside of what is allowed"),
        ];
        for (body, expected) in cases {
            let error = parse(body).expect_err(body);
            assert!(error.message().contains(expected), "{body}: {error}");
        }
    }

    #[test]
    fn pages_join_up_to_the_whole_list() {
        let models: Vec<_> = (0..25)
            .map(|number| RegisteredModel {
                name: format!("m{number:02}"),
                url: format!("/opt/ml/models/{number}/model"),
            })
            .collect();
        let mut listed = Vec::new();
        let mut query = "limit=10".to_owned();
        loop {
            let page = page(&models, &query).expect("a page");
            listed.extend(page.models);
            let Some(token) = page.next_page_token else { break };
            query = format!("next_page_token={token}&limit=10");
        }
        assert_eq!(listed, models.iter().map(Entry::from).collect::<Vec<_>>());
        assert_eq!(listed[3].model_url, "/opt/ml/models/3");
        for bad in ["limit=0", "limit=x", "next_page_token=%21"] {
            assert!(page(&models, bad).is_err(), "{bad}");
        }
    }
}

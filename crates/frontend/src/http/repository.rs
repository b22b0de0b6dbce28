//! Loading and unloading models by name: `POST /v2/repository/models/{name}/load` and `/unload`.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, header};
use inference::{Error, LoadOverrides, ModelKey, Result};
use serde::Deserialize;
use serde_json::Value;

use super::describe;
use super::path::ModelPath;
use super::slashes::Names;
use crate::admission::BodyShare;
use crate::body::{self, Whole};
use crate::load_parameters::{
    CONFIG, FILE, UNLOAD_DEPENDENTS, in_repository, unknown_load_parameter, unknown_unload_parameter, wrong_type,
};
use crate::status::Failure;
use crate::{App, Shared, reply};

/// Where a model's name stands in a path.
const MODELS: &str = "/v2/repository/models/";

#[derive(Deserialize, Default)]
struct Body {
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
}

/// Adds the routes; returns those whose names may hold slashes.
pub(super) fn routes(mut router: Router<Shared>) -> (Router<Shared>, Names) {
    let calls = [("/load", post(load)), ("/unload", post(unload))];
    let mut names = Names { prefix: MODELS, tails: Vec::new() };
    for (tail, handler) in calls {
        let in_one = format!("/v2/repository/{{repository}}/models/{{name}}{tail}");
        router = router.route(&format!("{MODELS}{{name}}{tail}"), handler).route(&in_one, post(in_one_repository));
        names.tails.push(tail.to_owned());
    }
    (router.route("/v2/repository/{repository}/index", post(in_one_repository)), names)
}

/// `POST /v2/repository/models/{name}/load`.
async fn load(State(app): State<Shared>, path: ModelPath, request: Request) -> Response {
    answer(&path.key, load_model(&app, &path.key, request).await)
}

/// `POST /v2/repository/models/{name}/unload`.
async fn unload(State(app): State<Shared>, path: ModelPath, request: Request) -> Response {
    answer(&path.key, unload_model(&app, &path.key, request).await)
}

/// Any of these, or the index, in one of several repositories.
async fn in_one_repository() -> Response {
    answer(&ModelKey::default(), Err(in_repository().into()))
}

fn answer(key: &ModelKey, outcome: Result<(), Failure>) -> Response {
    match outcome {
        Ok(()) => {
            let mut done = reply::empty(200);
            done.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            done
        }
        Err(failure) => describe::refuse(key, failure),
    }
}

async fn load_model(app: &App, key: &ModelKey, request: Request) -> Result<(), Failure> {
    let (parameters, _share) = parameters(app, request).await?;
    let overrides = overrides(parameters)?;
    Ok(app.services.control.load(key, overrides).await?)
}

async fn unload_model(app: &App, key: &ModelKey, request: Request) -> Result<(), Failure> {
    let (parameters, _share) = parameters(app, request).await?;
    let with_dependents = unload_dependents(parameters)?;
    Ok(app.services.control.unload(key, with_dependents).await?)
}

async fn parameters(app: &App, request: Request) -> Result<(BTreeMap<String, Value>, BodyShare), Failure> {
    let (head, body) = request.into_parts();
    let bounds = app.bounds(app.config.max_request_size);
    let Whole { bytes, share } = body::read(&head.headers, body, bounds, None).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok((BTreeMap::new(), share));
    }
    let body: Body = serde_json::from_slice(&bytes).map_err(|error| {
        Error::invalid_argument(format!("the request's body is not like {{\"parameters\":{{…}}}}: {error}"))
    })?;
    Ok((body.parameters, share))
}

fn overrides(parameters: BTreeMap<String, Value>) -> Result<LoadOverrides> {
    let mut overrides = LoadOverrides::default();
    for (name, value) in parameters {
        let text = match value {
            Value::String(text) => text,
            other => return Err(wrong_type(&name, "a string", kind(&other))),
        };
        match name.strip_prefix(FILE) {
            Some(path) => {
                let content = STANDARD.decode(text.as_bytes()).map_err(|error| {
                    Error::invalid_argument(format!("the parameter '{name}' is not base64: {error}"))
                })?;
                overrides.files.insert(path.to_owned(), content.into());
            }
            None if name == CONFIG => overrides.config = Some(text),
            None => return Err(unknown_load_parameter(&name)),
        }
    }
    Ok(overrides)
}

fn unload_dependents(parameters: BTreeMap<String, Value>) -> Result<bool> {
    let mut with_dependents = false;
    for (name, value) in parameters {
        match (name.as_str(), value) {
            (UNLOAD_DEPENDENTS, Value::Bool(given)) => with_dependents = given,
            (UNLOAD_DEPENDENTS, other) => return Err(wrong_type(&name, "a boolean", kind(&other))),
            _ => return Err(unknown_unload_parameter(&name)),
        }
    }
    Ok(with_dependents)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn given(parameters: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(parameters).expect("an object")
    }

    #[test]
    fn parameters_are_checked() {
        let read = overrides(given(json!({"config": "{}", "file:1/model.onnx": "AQID"}))).expect("valid");
        assert_eq!(read.config.as_deref(), Some("{}"));
        assert_eq!(read.files["1/model.onnx"], [1, 2, 3][..]);
        let cases = [
            (json!({"config": {}}), "must be a string, found an object"),
            (json!({"file:1/x": "%"}), "'file:1/x' is not base64"),
            (json!({"files": "AQID"}), "unrecognized load parameter 'files'"),
        ];
        for (parameters, part) in cases {
            let error = overrides(given(parameters.clone())).expect_err("wrong");
            assert!(error.message().contains(part), "{parameters}: {error}");
        }
        assert!(unload_dependents(given(json!({"unload_dependents": true}))).expect("valid"));
        assert!(!unload_dependents(BTreeMap::new()).expect("valid"));
        assert!(unload_dependents(given(json!({"unload_dependents": "true"}))).is_err());
        assert!(unload_dependents(given(json!({"dependents": true}))).is_err());
    }
}

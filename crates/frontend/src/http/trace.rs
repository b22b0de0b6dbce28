//! `/v2/trace/setting` and `/v2/models/{name}/trace/setting`, Triton's trace extension.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::response::Response;
use inference::{Error, ModelKey, Result};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::describe::refuse;
use super::path::ModelPath;
use crate::status::Failure;
use crate::trace::{TraceEdit, Value};
use crate::{App, Shared, body, reply};

/// Bytes that the body of an update may have.
const MAX_UPDATE: u64 = 64 << 10;

/// Settings in Triton's order.
#[derive(Serialize)]
struct Settings {
    trace_level: Option<Json>,
    trace_rate: Option<Json>,
    trace_count: Option<Json>,
    log_frequency: Option<Json>,
    trace_file: Option<Json>,
    trace_mode: Option<Json>,
    #[serde(flatten)]
    details: BTreeMap<String, Json>,
}

/// `GET /v2/trace/setting`.
pub(super) async fn of_all(State(app): State<Shared>) -> Response {
    tell(app.services.tracing.settings(""))
}

/// `POST /v2/trace/setting`.
pub(super) async fn update_of_all(State(app): State<Shared>, request: Request) -> Response {
    answer(&ModelKey::default(), update(&app, "", request).await)
}

/// `GET /v2/models/{name}/trace/setting`.
pub(super) async fn of_model(State(app): State<Shared>, path: ModelPath) -> Response {
    match known(&app, &path.key).await {
        Ok(model) => tell(app.services.tracing.settings(&model)),
        Err(error) => refuse(&path.key, error.into()),
    }
}

/// `POST /v2/models/{name}/trace/setting`.
pub(super) async fn update_of_model(State(app): State<Shared>, path: ModelPath, request: Request) -> Response {
    match known(&app, &path.key).await {
        Ok(model) => answer(&path.key, update(&app, &model, request).await),
        Err(error) => refuse(&path.key, error.into()),
    }
}

/// The model's name, if there is such a model. Loads it, as everything that is told about a model does.
async fn known(app: &App, key: &ModelKey) -> Result<String> {
    app.services.control.describe(key, None, None).await.map(|_| key.to_string())
}

async fn update(app: &App, model: &str, request: Request) -> Result<BTreeMap<String, Value>, Failure> {
    let (head, body) = request.into_parts();
    let body = body::read(&head.headers, body, app.bounds(MAX_UPDATE), None).await?.bytes;
    let edit = edit(&body)?;
    Ok(app.services.tracing.update(model, &edit)?)
}

/// Reads the body of an update.
///
/// # Errors
/// InvalidArgument, Unsupported.
pub(crate) fn edit(body: &[u8]) -> Result<TraceEdit> {
    let members: Map<String, Json> = serde_json::from_slice(body).map_err(|error| {
        let expected = r#"{"trace_level":["TIMESTAMPS"],"trace_rate":"1"}"#;
        Error::invalid_argument(format!("the update's body is not like {expected}: {error}"))
    })?;
    let mut edit = TraceEdit::default();
    for (name, value) in members {
        let values = match value {
            Json::Null => Vec::new(),
            Json::Array(values) => values.into_iter().map(|value| text(&name, value)).collect::<Result<_>>()?,
            value => vec![text(&name, value)?],
        };
        edit.add(&name, &values)?;
    }
    Ok(edit)
}

/// Triton's values are strings; numbers are understood as well.
fn text(name: &str, value: Json) -> Result<String> {
    match value {
        Json::String(text) => Ok(text),
        Json::Number(number) => Ok(number.to_string()),
        other => Err(Error::invalid_argument(format!("Unable to parse '{name}', got: {other}; expected a string"))),
    }
}

fn answer(key: &ModelKey, outcome: Result<BTreeMap<String, Value>, Failure>) -> Response {
    match outcome {
        Ok(settings) => tell(settings),
        Err(failure) => refuse(key, failure),
    }
}

fn tell(settings: BTreeMap<String, Value>) -> Response {
    let json = |value| match value {
        Value::One(value) => Json::String(value),
        Value::List(values) => Json::from(values),
    };
    let mut settings: BTreeMap<String, Json> = settings.into_iter().map(|(name, value)| (name, json(value))).collect();
    let mut take = |name: &str| settings.remove(name);
    reply::json(&Settings {
        trace_level: take("trace_level"),
        trace_rate: take("trace_rate"),
        trace_count: take("trace_count"),
        log_frequency: take("log_frequency"),
        trace_file: take("trace_file"),
        trace_mode: take("trace_mode"),
        details: settings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_clear_and_numbers_are_understood() {
        let read = edit(br#"{"trace_level":null,"trace_rate":5,"trace_count":"-1"}"#).expect("valid");
        let mut expected = TraceEdit::default();
        for (name, values) in
            [("trace_level", vec![]), ("trace_rate", vec!["5".to_owned()]), ("trace_count", vec!["-1".to_owned()])]
        {
            expected.add(name, &values).expect("valid");
        }
        assert_eq!(read, expected);
        for bad in [&b"[]"[..], b"{", br#"{"trace_rate":true}"#, br#"{"trace_rate":["1","2"]}"#] {
            assert!(edit(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}

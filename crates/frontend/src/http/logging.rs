//! `GET` and `POST /v2/logging`.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::MethodRouter;
use inference::{Error, ModelKey, Result};
use serde::Serialize;
use serde_json::Value as Json;

use super::describe::refuse;
use crate::logging::{self, LogChange, LogSettings, Value, Wording};
use crate::status::Failure;
use crate::{App, Shared, body, reply};

/// Bytes that the body of a change may have.
const MAX_CHANGE: u64 = 64 << 10;

#[derive(Serialize)]
struct Settings {
    log_file: &'static str,
    log_info: bool,
    log_warning: bool,
    log_error: bool,
    log_verbose_level: u32,
    log_format: &'static str,
}

pub(super) fn route() -> MethodRouter<Shared> {
    axum::routing::get(settings).post(change)
}

async fn settings(State(app): State<Shared>) -> Response {
    let LogSettings { info, warning, error, verbose_level, time } = app.services.log.settings();
    reply::json(&Settings {
        // The log goes to standard error.
        log_file: "",
        log_info: info,
        log_warning: warning,
        log_error: error,
        log_verbose_level: verbose_level,
        log_format: time.name(),
    })
}

async fn change(State(app): State<Shared>, request: Request) -> Response {
    match read(&app, request).await {
        Ok(change) => {
            app.services.log.change(change);
            settings(State(app)).await
        }
        Err(failure) => refuse(&ModelKey::default(), failure),
    }
}

async fn read(app: &App, request: Request) -> Result<LogChange, Failure> {
    let (head, body) = request.into_parts();
    let body = body::read(&head.headers, body, app.bounds(MAX_CHANGE), None).await?.bytes;
    Ok(parse(&body)?)
}

/// Reads the body of a change.
///
/// # Errors
/// InvalidArgument, Unsupported.
pub(crate) fn parse(body: &[u8]) -> Result<LogChange> {
    let settings: serde_json::Map<String, Json> = serde_json::from_slice(body).map_err(|error| {
        Error::invalid_argument(format!(
            "the body is not an object of log settings like {{\"log_info\":true}}: {error}"
        ))
    })?;
    // As in Triton, null leaves a setting as it is.
    let given = settings.into_iter().filter(|(_, value)| !value.is_null());
    logging::change(given.map(|(name, value)| (name, of_json(value))), &Wording::Http)
}

fn of_json(value: Json) -> Value {
    match value {
        Json::Bool(value) => Value::Bool(value),
        Json::Number(value) => {
            value.as_u64().and_then(|value| u32::try_from(value).ok()).map_or(Value::Other, Value::Unsigned)
        }
        Json::String(value) => Value::String(value),
        _ => Value::Other,
    }
}

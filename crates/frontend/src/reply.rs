//! Small answers: JSON, empty, and errors in the shape that most surfaces share (`{"error": "..."}`).

use std::any::Any;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};
use inference::Error;
use serde::Serialize;
use tower_http::catch_panic::CatchPanicLayer;

use crate::status::{self, Failure, Refusal, Status};
use crate::{encoding, infer};

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
}

/// 200 and a JSON body.
pub(crate) fn json(value: &impl Serialize) -> Response {
    json_with(200, value)
}

/// A JSON body under any status.
pub(crate) fn json_with(status: u16, value: &impl Serialize) -> Response {
    let text = serde_json::to_vec(value).expect("invariant: plain structures with string keys");
    json_text(status, text)
}

/// A body that is JSON already.
pub(crate) fn json_text(status: u16, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status::code(status);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A status without a body.
pub(crate) fn empty(status: u16) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status::code(status);
    response
}

/// The text of `{"error": message}`.
pub(crate) fn error_json(message: &str) -> Vec<u8> {
    serde_json::to_vec(&ErrorBody { error: message }).expect("invariant: a structure with string keys")
}

/// `{"error": message}`.
pub(crate) fn error(number: u16, message: &str) -> Response {
    json_with(number, &ErrorBody { error: message })
}

/// Adds what a status says beyond its number, and what the failure says beyond its message.
pub(crate) fn decorate(mut response: Response, status: &Status, failure: &Failure) -> Response {
    if let Some(version) = failure.version() {
        infer::version_header(response.headers_mut(), version);
    }
    if let Some(time) = failure.retry_after().or_else(|| status.retry.then_some(Duration::ZERO)) {
        response.headers_mut().insert(header::RETRY_AFTER, status::retry_after(time).into());
    }
    if status.http == status::of_refusal(Refusal::Encoding).http {
        response.headers_mut().insert(header::ACCEPT_ENCODING, encoding::SUPPORTED);
    }
    response
}

pub(crate) async fn unknown_route() -> Response {
    error(status::of_refusal(Refusal::Route).http, "Not Found")
}

pub(crate) async fn unknown_method() -> Response {
    error(status::of_refusal(Refusal::Method).http, "Method Not Allowed")
}

/// Turns a handler's panic into an answer, so that its connection lives on.
pub(crate) fn catch_panics() -> CatchPanicLayer<fn(Box<dyn Any + Send>) -> Response> {
    CatchPanicLayer::custom(panicked as fn(Box<dyn Any + Send>) -> Response)
}

fn panicked(payload: Box<dyn Any + Send>) -> Response {
    let error = log_panic(&*payload);
    self::error(status::of_error(&error, false).http, error.message())
}

/// Logs a handler's panic; the error is what its client is told.
pub(crate) fn log_panic(payload: &(dyn Any + Send)) -> Error {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("of an unknown type"), "a request handler panicked");
    Error::internal("internal error: the request's handler panicked; the server's log has more")
}

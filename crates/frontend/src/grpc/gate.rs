//! What every call passes before tonic sees it.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;

use super::encoding::{self, ACCEPT_ENCODING};
use super::message_timeout::MessageTimeout;
use crate::config::GrpcCompression;

/// Lets a call through, with bounds on its messages' time. tonic compresses an answer whenever its client could read it, with
/// what the client names first.
pub(super) async fn pass(
    setting: GrpcCompression,
    body_timeout: Duration,
    mut request: Request,
    next: Next,
) -> Response {
    // What is not known is tonic's to refuse.
    let packed = encoding::of_request(request.headers()).unwrap_or_default();
    let packing = encoding::of_answer(request.headers(), packed, setting);
    match packing {
        None => request.headers_mut().remove(ACCEPT_ENCODING),
        Some(packing) => request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(packing.name())),
    };
    next.run(request.map(|body| Body::new(MessageTimeout::new(body, body_timeout)))).await
}

//! What every call passes before tonic sees it; and what tonic refuses by itself, with the statuses and texts of the one
//! table.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use inference::Error;
use tonic::{Code, Status};

use super::encoding::{self, ACCEPT_ENCODING};
use super::message_timeout::MessageTimeout;
use crate::config::GrpcCompression;
use crate::status::{Failure, Refusal};

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

/// What tonic refuses before there is a message.
pub(super) fn of_tonic(status: &Status, max_size: u64) -> Failure {
    match status.code() {
        // A message's length, before and after it was decompressed.
        Code::OutOfRange | Code::ResourceExhausted => Failure::Refused(
            Refusal::BodyTooLarge,
            format!(
                "the request message is larger than the {max_size} bytes that --max-request-size allows; send a smaller \
                 batch or raise it"
            ),
        ),
        Code::Unimplemented => Failure::Refused(Refusal::Encoding, status.message().to_owned()),
        Code::DeadlineExceeded => Failure::Refused(Refusal::BodyTimeout, status.message().to_owned()),
        Code::Cancelled => Error::new(inference::ErrorKind::Cancelled, "the request's message broke off").into(),
        _ => Error::invalid_argument(format!("the request message cannot be read: {}", status.message())).into(),
    }
}

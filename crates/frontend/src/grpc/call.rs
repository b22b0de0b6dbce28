//! What the calls of inference have in common: what their metadata says, and how their answers begin, go out and end. They have
//! the HTTP/2 body to themselves: tonic would copy each message on its way in and on its way out.

use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use inference::{Error, ModelKey, Parameters, TargetModel};
use protocol::grpc_service::ModelInferRequest;
use tonic::Status;

use super::{decode, encode, encoding, failure, timeout, wire};
use crate::body::{self, Guard};
use crate::compression::{self, Encoding};
use crate::status::{Failure, Refusal};
use crate::{App, infer};

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What a call's metadata says.
pub(super) struct Head {
    target: Option<TargetModel>,
    pub(super) deadline: Option<Instant>,
    /// What says what the caller traces.
    pub(super) caller: HeaderMap,
    /// Metadata that becomes parameters of each request.
    forwarded: Parameters,
    /// What requests are compressed with.
    pub(super) encoding: Option<Encoding>,
    /// What answers are compressed with, and the level.
    packing: Option<(Encoding, u32)>,
}

impl Head {
    /// # Errors
    /// What is wrong with the metadata.
    pub(super) fn read(app: &App, headers: &HeaderMap, began: Instant) -> Result<Head, Failure> {
        let deadline = timeout::of_call(headers)?.and_then(|timeout| began.checked_add(timeout));
        let mut forwarded = Parameters::new();
        if let Some(forward) = &app.config.grpc_header_forward {
            forward.apply(headers, &mut forwarded);
        }
        let (encoding, compression) = (encoding::of_request(headers)?, app.config.grpc_compression);
        Ok(Head {
            target: infer::target(headers)?,
            deadline,
            caller: app.services.tracing.headers_of_caller(headers),
            forwarded,
            encoding,
            packing: encoding::of_answer(headers, encoding, compression).map(|packing| (packing, compression.level())),
        })
    }

    /// Adds what the call's metadata says to a message, which has the last word.
    pub(super) fn forward(&self, message: &mut ModelInferRequest) {
        for (name, value) in &self.forwarded {
            message.parameters.entry(name.clone()).or_insert_with(|| encode::parameter(value));
        }
    }

    /// The model that a message of the call is about.
    pub(super) fn key(&self, message: &ModelInferRequest) -> inference::Result<ModelKey> {
        decode::key(self.target.clone(), &message.model_name, &message.model_version)
    }

    /// An answer's parts as they go to the socket; `guard` lives until the last of them was written. What is compressed shares
    /// no memory with the model.
    ///
    /// # Errors
    /// InvalidArgument for more bytes than gRPC can frame.
    pub(super) async fn pack(&self, mut parts: Vec<Bytes>, guard: Option<Guard>) -> inference::Result<Vec<Bytes>> {
        let Some((encoding, level)) = self.packing else {
            body::guard_last(&mut parts, guard);
            return Ok(parts);
        };
        wire::frame_packed(compression::pack(encoding, level, wire::payload(parts)).await)
    }

    /// The answer to the call.
    pub(super) fn answer(&self, mut headers: HeaderMap, body: Body) -> Response {
        headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        if let Some((encoding, _)) = self.packing {
            headers.insert(encoding::ENCODING, HeaderValue::from_static(encoding.name()));
        }
        let mut response = Response::new(body);
        *response.headers_mut() = headers;
        response
    }
}

/// What follows the last message; `failure` is the status of a call that did not end well.
pub(super) fn trailers(failure: Option<&Status>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    match failure {
        None => drop(trailers.insert(STATUS, HeaderValue::from_static("0"))),
        // Fails for a text that no header can hold, which is left out.
        Some(status) => drop(status.add_header(&mut trailers)),
    }
    trailers
}

/// A failure as a status in the head, without a message.
pub(super) fn refuse(failure: &Failure) -> Response {
    let mut response = failure::status(failure).into_http();
    if matches!(failure, Failure::Refused(Refusal::Encoding, _)) {
        response.headers_mut().insert(encoding::ACCEPT_ENCODING, encoding::ACCEPTED);
    }
    response
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    content_type.starts_with(b"application/grpc") && !content_type.starts_with(b"application/grpc-web")
}

/// The failure of what is no gRPC call, and its answer.
pub(super) fn no_call() -> (Failure, Response) {
    let failure = Error::invalid_argument("the content type is not application/grpc: this is no gRPC call").into();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    (failure, response)
}

//! `ModelInfer`. It has the HTTP/2 body to itself: tonic would copy each message on its way in and on its way out.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use inference::{Error, ModelKey};

use super::decode::decode;
use super::infer::{self, Answered, Head};
use super::messages::Messages;
use super::{encoding, failure, wire};
use crate::body::{Frames, Whole};
use crate::status::{Failure, Refusal};
use crate::telemetry::{InFlight, Surface};
use crate::{App, Shared};

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Answers a call, and records its one outcome.
pub(super) async fn model_infer(State(app): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let in_flight = InFlight::begin(Surface::Grpc);
    if !is_grpc(&head.headers) {
        let failure = Error::invalid_argument("the content type is not application/grpc: this is no gRPC call").into();
        infer::record(in_flight, &ModelKey::default(), &failure);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let mut key = ModelKey::default();
    match answer(&app, &head.headers, body, &in_flight, &mut key).await {
        Ok(response) => {
            in_flight.succeed();
            response
        }
        Err(failure) => {
            infer::record(in_flight, &key, &failure);
            refuse(&failure)
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    content_type.starts_with(b"application/grpc") && !content_type.starts_with(b"application/grpc-web")
}

/// A failure as a status in the head, without a message.
fn refuse(failure: &Failure) -> Response {
    let mut response = failure::status(failure).into_http();
    if matches!(failure, Failure::Refused(Refusal::Encoding, _)) {
        response.headers_mut().insert(encoding::ACCEPT_ENCODING, encoding::ACCEPTED);
    }
    response
}

/// `key` becomes the model that the call is about, once that is known.
async fn answer(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    in_flight: &InFlight,
    key: &mut ModelKey,
) -> Result<Response, Failure> {
    let head = Head::read(app, headers, in_flight.began())?;
    let packed = encoding::of_request(headers)?;
    let compression = app.config.grpc_compression;
    let packing = encoding::of_answer(headers, packed, compression);
    let _request = app.services.admission.enter()?;
    // bytes ─► one buffer ─► a message whose tensors are slices of it
    let bounds = app.bounds(app.config.max_request_size);
    let Whole { bytes, mut share } = Messages::new(body, packed).only(bounds).await?;
    let mut message = decode(bytes, &mut share)?;
    head.forward(&mut message);
    // ─► the models ─►
    *key = head.key(&message)?;
    let Answered { message, headers: mut told } =
        infer::run(app, key.clone(), &head, message, in_flight.began(), &mut share).await?;
    // ─► bytes around the tensors as they lie
    let mut parts = wire::frame(message)?;
    if let Some(packing) = packing {
        parts = wire::compress(packing, compression.level(), parts)?;
        told.insert(encoding::ENCODING, HeaderValue::from_static(packing.name()));
    }
    told.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
    let mut response = Response::new(Body::new(Frames::new(parts).with_trailers(trailers)));
    *response.headers_mut() = told;
    Ok(response)
}

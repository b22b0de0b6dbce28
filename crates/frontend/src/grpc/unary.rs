//! `ModelInfer`.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderMap;
use inference::ModelKey;

use super::call::{self, Head};
use super::decode::decode;
use super::infer::{self, Answered};
use super::messages::Messages;
use super::wire;
use crate::body::{Frames, Whole};
use crate::status::Failure;
use crate::telemetry::{InFlight, Surface};
use crate::{App, Shared};

/// Answers a call, and records its one outcome.
pub(super) async fn model_infer(State(app): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let in_flight = InFlight::begin(Surface::Grpc);
    if !call::is_grpc(&head.headers) {
        let (failure, response) = call::no_call();
        infer::record(in_flight, &ModelKey::default(), &failure);
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
            crate::infer::with_version(&app, &key, call::refuse(&failure))
        }
    }
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
    let _request = app.services.admission.enter()?;
    // bytes ─► one buffer ─► a message whose tensors are slices of it
    let bounds = app.bounds(app.config.max_request_size);
    let Whole { bytes, mut share } = Messages::new(body, head.encoding).only(bounds).await?;
    let mut message = decode(bytes, &mut share)?;
    head.forward(&mut message);
    // ─► the models ─►
    *key = head.key(&message)?;
    let Answered { message, headers: told, guard } =
        infer::run(app, key.clone(), &head, message, in_flight.began(), &mut share).await?;
    // ─► bytes around the tensors as they lie
    let parts = head.pack(wire::frame(message)?, guard).await?;
    Ok(head.answer(told, Body::new(Frames::new(parts).with_trailers(call::trailers(None)))))
}

//! What every call passes before and after tonic: it is counted from its head on, and what tonic refuses by itself gets the
//! statuses and texts of the one table.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName};
use inference::Error;
use tonic::{Code, Status};

use super::failure;
use crate::App;
use crate::status::{Failure, Refusal};
use crate::telemetry::{InFlight, Surface};

const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// The record of a `ModelInfer` call, handed from here to the call's handler.
#[derive(Clone)]
pub(super) struct Ticket(Arc<Mutex<Option<InFlight>>>);

impl Ticket {
    /// Takes the record; there is none when it was taken already.
    pub(super) fn take(&self) -> Option<InFlight> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Lets a call through.
pub(super) async fn pass(app: Arc<App>, mut request: Request, next: Next) -> Response {
    // Answers are compressed when the request was: every client says that it could read them, and few want to.
    if !is_compressed(request.headers()) {
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    if request.uri().path() != MODEL_INFER {
        return next.run(request).await;
    }
    let ticket = Ticket(Arc::new(Mutex::new(Some(InFlight::begin(Surface::Grpc)))));
    request.extensions_mut().insert(ticket.clone());
    let response = next.run(request).await;
    let Some(in_flight) = ticket.take() else { return response };
    let Some(refused) = Status::from_header_map(response.headers()) else {
        record(in_flight, &Error::invalid_argument("this is no gRPC call").into());
        return response;
    };
    let failure = of_tonic(&refused, app.config.max_request_size);
    record(in_flight, &failure);
    failure::status(&failure).into_http()
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get(ENCODING).is_some_and(|encoding| encoding != "identity")
}

/// Records a message that could not be read.
pub(super) fn record(in_flight: InFlight, failure: &Failure) {
    let line = failure.status(false);
    crate::infer::log(&inference::ModelKey::default(), failure, &line);
    in_flight.fail(line.label);
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
        Code::Cancelled => Error::new(inference::ErrorKind::Cancelled, "the request's message broke off").into(),
        _ => Error::invalid_argument(format!("the request message cannot be read: {}", status.message())).into(),
    }
}

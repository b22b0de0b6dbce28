//! What `ModelInfer` and a stream have in common.

use std::time::Instant;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use http::HeaderMap;
use inference::{InferRequest, InferResponse, ModelKey, Result};
use protocol::grpc_service::{ModelInferRequest, ModelInferResponse};

use super::call::Head;
use super::{decode, encode, wire};
use crate::admission::BodyShare;
use crate::body::Guard;
use crate::codec::OutputChoice;
use crate::shared_memory::{self, SharedOutput};
use crate::status::Failure;
use crate::telemetry::{InFlight, Surface};
use crate::trace::RequestSpan;
use crate::{App, decoupled, infer};

/// An answer, and what is told about it in the call's metadata.
pub(super) struct Answered {
    pub(super) message: ModelInferResponse,
    pub(super) headers: HeaderMap,
    /// What must live until the message has been written.
    pub(super) guard: Option<Guard>,
}

/// Records a request that failed.
pub(super) fn record(in_flight: InFlight, key: &ModelKey, failure: &Failure) {
    let line = failure.status(false);
    infer::log(key, failure, &line);
    in_flight.fail(line.label);
}

/// One of the answers to a request on a stream.
pub(super) struct OneOfMany {
    /// As it goes to the socket.
    pub(super) parts: Vec<Bytes>,
    pub(super) is_decoupled: bool,
    /// It says that it is the last.
    pub(super) is_last: bool,
}

/// Lets a request in and runs it, traced if it is to be, or says that there are too many. Its message is in memory already,
/// and counted in `share`, but soon gone when it is refused.
pub(super) fn many<'a>(
    app: &'a App,
    key: Result<ModelKey>,
    head: &'a Head,
    message: ModelInferRequest,
    share: BodyShare,
    began: Instant,
) -> BoxStream<'a, Result<OneOfMany>> {
    Box::pin(async_stream::stream! {
        let key = match key {
            Ok(key) => key,
            Err(error) => {
                yield Err(error);
                return;
            }
        };
        let mut span = app.services.tracing.begin(&key, &head.caller, Surface::Grpc, began);
        let mut failed = None;
        let mut answers = many_in(span.as_mut(), app, key, head, message, share);
        while let Some(answer) = answers.next().await {
            failed = answer.as_ref().err().map(|error| Failure::from(error.clone()));
            yield answer;
        }
        drop(answers);
        if let Some(span) = span {
            span.end(failed.as_ref());
        }
    })
}

fn many_in<'a>(
    mut span: Option<&'a mut RequestSpan>,
    app: &'a App,
    key: ModelKey,
    head: &'a Head,
    message: ModelInferRequest,
    mut share: BodyShare,
) -> BoxStream<'a, Result<OneOfMany>> {
    Box::pin(async_stream::try_stream! {
        let _request = app.services.admission.enter()?;
        let (mut request, asked) = read(app, &key, head.deadline, message, &mut share).await?;
        if let Some(span) = &mut span {
            span.admit(&mut request);
        }
        let mut responses = app.services.inference.infer_stream(request);
        while let Some(response) = responses.next().await {
            let response = response?;
            // What it tells about comes with the first answer.
            if let Some(span) = span.take() {
                span.answer(&response);
            }
            let is_decoupled = response.model.as_ref().is_some_and(|model| model.spec.decoupled);
            let is_last = response.is_final || !is_decoupled;
            let Answered { mut message, headers, guard } = asked.answer(app, &key, response).await?;
            encode::tell(&mut message, &headers);
            encode::tell_last(&mut message, is_last);
            let parts = head.pack(wire::frame_of_stream(String::new(), message)?, guard).await?;
            yield OneOfMany { parts, is_decoupled, is_last };
        }
    })
}

/// Runs one request that has one answer, traced if it is to be. What it takes of shared memory counts in `share`.
pub(super) async fn run(
    app: &App,
    key: ModelKey,
    head: &Head,
    message: ModelInferRequest,
    began: Instant,
    share: &mut BodyShare,
) -> Result<Answered> {
    let mut span = app.services.tracing.begin(&key, &head.caller, Surface::Grpc, began);
    let outcome = run_in(span.as_mut(), app, key, head.deadline, message, share).await;
    if let Some(span) = span {
        span.end(outcome.as_ref().err().map(|error| Failure::from(error.clone())).as_ref());
    }
    outcome
}

async fn run_in(
    mut span: Option<&mut RequestSpan>,
    app: &App,
    key: ModelKey,
    deadline: Option<Instant>,
    message: ModelInferRequest,
    share: &mut BodyShare,
) -> Result<Answered> {
    let (mut request, asked) = read(app, &key, deadline, message, share).await?;
    if let Some(span) = &mut span {
        span.admit(&mut request);
    }
    let answered = app.services.inference.infer(request).await;
    let response = answered.map_err(|error| decoupled::explain(app, &key, decoupled::GRPC, error))?;
    if let Some(span) = &mut span {
        span.answer(&response);
    }
    asked.answer(app, &key, response).await
}

/// What a request's answers are written by.
struct Asked {
    id: String,
    outputs: Vec<OutputChoice>,
    shared_outputs: Vec<SharedOutput>,
}

/// What it takes of shared memory counts in `share`.
async fn read(
    app: &App,
    key: &ModelKey,
    deadline: Option<Instant>,
    message: ModelInferRequest,
    share: &mut BodyShare,
) -> Result<(InferRequest, Asked)> {
    let mut wire = decode::request(message)?;
    let shared_outputs = shared_memory::fetch(app, &mut wire, share).await?;
    let request = wire.take_request(key.clone(), deadline);
    Ok((request, Asked { id: wire.id, outputs: wire.outputs, shared_outputs }))
}

impl Asked {
    async fn answer(&self, app: &App, key: &ModelKey, response: InferResponse) -> Result<Answered> {
        let cache = response.cache.clone();
        self.write(app, key, response).await.map_err(|error| infer::of_found(cache.as_ref(), error))
    }

    async fn write(&self, app: &App, key: &ModelKey, response: InferResponse) -> Result<Answered> {
        shared_memory::store(&self.shared_outputs, &response).await?;
        let mut headers = HeaderMap::new();
        infer::cache_headers(&mut headers, response.cache.as_ref());
        let (name, max_size) = (infer::name(key, &response), app.config.max_response_size);
        let message = encode::response(&response, self.id.clone(), name, &self.outputs, max_size)?;
        Ok(Answered { message, headers, guard: response.guard })
    }
}

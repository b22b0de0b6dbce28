//! What `ModelInfer` and a stream have in common.

use std::time::Instant;

use futures::stream::{BoxStream, StreamExt};
use http::HeaderMap;
use inference::{InferRequest, InferResponse, ModelKey, Parameters, Result, TargetModel};
use protocol::grpc_service::{ModelInferRequest, ModelInferResponse};
use protocol::message_size;

use super::{decode, encode, timeout};
use crate::admission::BodyShare;
use crate::codec::OutputChoice;
use crate::shared_memory::{self, SharedOutput};
use crate::status::Failure;
use crate::telemetry::{InFlight, Surface, count_copy};
use crate::trace::RequestSpan;
use crate::{App, body, decoupled, infer};

/// What a call's metadata says.
pub(super) struct Head {
    target: Option<TargetModel>,
    deadline: Option<Instant>,
    /// What says what the caller traces.
    caller: HeaderMap,
    /// Metadata that becomes parameters of each request.
    forwarded: Parameters,
}

impl Head {
    pub(super) fn read(app: &App, headers: &HeaderMap, began: Instant) -> Result<Head> {
        let deadline = timeout::of_call(headers)?.and_then(|timeout| began.checked_add(timeout));
        let mut forwarded = Parameters::new();
        if let Some(forward) = &app.config.grpc_header_forward {
            forward.apply(headers, &mut forwarded);
        }
        Ok(Head {
            target: infer::target(headers)?,
            deadline,
            caller: app.services.tracing.headers_of_caller(headers),
            forwarded,
        })
    }

    /// Adds what the call's metadata says to a message, which has the last word.
    pub(super) fn forward(&self, message: &mut ModelInferRequest) {
        for (name, value) in &self.forwarded {
            message.parameters.entry(name.clone()).or_insert_with(|| encode::parameter(value));
        }
    }

    /// The model that a message of the call is about.
    pub(super) fn key(&self, message: &ModelInferRequest) -> Result<ModelKey> {
        decode::key(self.target.clone(), &message.model_name, &message.model_version)
    }
}

/// An answer, and what is told about it in the call's metadata.
pub(super) struct Answered {
    pub(super) message: ModelInferResponse,
    pub(super) headers: HeaderMap,
}

/// Records a request that failed.
pub(super) fn record(in_flight: InFlight, key: &ModelKey, failure: &Failure) {
    let line = failure.status(false);
    infer::log(key, failure, &line);
    in_flight.fail(line.label);
}

/// One of the answers to a request on a stream.
pub(super) struct OneOfMany {
    pub(super) message: ModelInferResponse,
    pub(super) is_decoupled: bool,
    /// The model said that it is the last.
    pub(super) is_final: bool,
}

/// Lets a request in and runs it, traced if it is to be, or says that there are too many. Its message is in memory already,
/// but soon gone when it is refused.
pub(super) fn many<'a>(
    app: &'a App,
    key: Result<ModelKey>,
    head: &'a Head,
    message: ModelInferRequest,
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
        let mut answers = many_in(span.as_mut(), app, key, head.deadline, message);
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
    deadline: Option<Instant>,
    message: ModelInferRequest,
) -> BoxStream<'a, Result<OneOfMany>> {
    Box::pin(async_stream::try_stream! {
        let _request = app.services.admission.enter()?;
        let mut body = app.services.admission.body();
        body.add(message_size(&message))?;
        // tonic gathers a message's frames in one buffer.
        count_copy("grpc_message_in", message.raw_input_contents.iter().map(bytes::Bytes::len).sum());
        let (mut request, asked) = read(app, &key, deadline, message, &mut body).await?;
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
            let is_final = response.is_final;
            let Answered { mut message, headers } = asked.answer(app, &key, response).await?;
            // tonic writes a message into one buffer.
            count_copy("grpc_message_out", message.raw_output_contents.iter().map(bytes::Bytes::len).sum());
            encode::tell(&mut message, &headers);
            yield OneOfMany { message, is_decoupled, is_final };
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
        shared_memory::store(&self.shared_outputs, &response).await?;
        let mut headers = HeaderMap::new();
        if let Some(outcome) = &response.cache {
            infer::cache_headers(&mut headers, outcome);
        }
        let (name, max_size) = (infer::name(key, &response), app.config.max_response_size);
        let mut message = encode::response(&response, self.id.clone(), name, &self.outputs, max_size)?;
        // The message is written after this call.
        if let (Some(guard), Some(last)) = (response.guard, message.raw_output_contents.last_mut()) {
            *last = body::guarded(std::mem::take(last), guard);
        }
        Ok(Answered { message, headers })
    }
}

//! What `ModelInfer` and a stream have in common, and the stream.

use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, BoxStream, StreamExt};
use http::HeaderMap;
use inference::{Error, InferRequest, InferResponse, ModelKey, Parameter, Result, TargetModel};
use protocol::grpc_service::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use protocol::message_size;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use super::sequences::Sequences;
use super::{decode, encode, failure, gate, timeout};
use crate::admission::BodyShare;
use crate::status::Failure;
use crate::telemetry::{InFlight, Surface, count_copy};
use crate::trace::{RequestSpan, Tracing};
use crate::{App, Shared, body, infer, shared_memory};

/// How many requests of one stream are worked on at once. Further ones stay on the wire.
const STREAM_CONCURRENCY: usize = 32;
/// Metadata by which a client asks that a failing request ends its stream with a status.
const ERRORS_AS_STATUS: &str = "triton_grpc_error";
/// The parameter of an answer on a stream that says that it is the request's last.
const FINAL_RESPONSE: &str = "triton_final_response";

/// What a call's metadata says.
pub(super) struct Head {
    target: Option<TargetModel>,
    deadline: Option<Instant>,
    /// What says what the caller traces.
    caller: HeaderMap,
}

impl Head {
    pub(super) fn read(headers: &HeaderMap, began: Instant, tracing: &Tracing) -> Result<Head> {
        let deadline = timeout::of_call(headers)?.and_then(|timeout| began.checked_add(timeout));
        Ok(Head { target: infer::target(headers)?, deadline, caller: tracing.headers_of_caller(headers) })
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

/// `ModelStreamInfer`: requests are worked on at once, and answered in their order.
pub(super) fn stream(
    app: Shared,
    request: Request<Streaming<ModelInferRequest>>,
    closing: CancellationToken,
) -> Result<BoxStream<'static, Result<ModelStreamInferResponse, Status>>, Status> {
    let (metadata, _, requests) = request.into_parts();
    let head = Head::read(metadata.as_ref(), Instant::now(), &app.services.tracing);
    let head = Arc::new(head.map_err(|error| failure::refuse(&ModelKey::default(), error))?);
    let errors_as_status = metadata.get(ERRORS_AS_STATUS).is_some_and(|value| value == "true");
    let mut sequences = Sequences::default();
    let answers = requests.take_until(closing.clone().cancelled_owned()).map(move |message| {
        let (app, head) = (app.clone(), head.clone());
        let mut turn = message.as_ref().map(|message| sequences.turn(message)).unwrap_or_default();
        async move {
            turn.wait().await;
            on_stream(&app, &head, message, errors_as_status).await
        }
    });
    let farewell = stream::once(async move { closing.is_cancelled() }).filter_map(async |closing| {
        closing.then(|| Err(failure::refuse(&ModelKey::default(), Error::unavailable("the server is shutting down"))))
    });
    Ok(answers.buffered(STREAM_CONCURRENCY).chain(farewell).boxed())
}

async fn on_stream(
    app: &App,
    head: &Head,
    message: Result<ModelInferRequest, Status>,
    errors_as_status: bool,
) -> Result<ModelStreamInferResponse, Status> {
    let in_flight = InFlight::begin(Surface::Grpc);
    let message = match message {
        Ok(message) => message,
        // The stream cannot be read any further.
        Err(status) => {
            let failure = gate::of_tonic(&status, app.config.max_request_size);
            record(in_flight, &ModelKey::default(), &failure);
            return Err(failure::status(&failure));
        }
    };
    let id = message.id.clone();
    match answer(app, head, message, in_flight).await {
        Ok(Answered { mut message, .. }) => {
            message.parameters.insert(FINAL_RESPONSE.to_owned(), encode::parameter(&Parameter::Bool(true)));
            Ok(ModelStreamInferResponse { error_message: String::new(), infer_response: Some(message) })
        }
        Err(failure) if errors_as_status => Err(failure::status(&failure)),
        Err(failure) => Ok(ModelStreamInferResponse {
            error_message: failure.message().to_owned(),
            infer_response: Some(ModelInferResponse { id, ..ModelInferResponse::default() }),
        }),
    }
}

/// Answers one request, and records its one outcome.
async fn answer(app: &App, head: &Head, message: ModelInferRequest, in_flight: InFlight) -> Result<Answered, Failure> {
    let key = head.key(&message);
    let name = key.clone().unwrap_or_default();
    let outcome = match key {
        Ok(key) => admit(app, key, head, message, in_flight.began()).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(answered) => {
            in_flight.succeed();
            Ok(answered)
        }
        Err(error) => {
            let failure = Failure::from(error);
            record(in_flight, &name, &failure);
            Err(failure)
        }
    }
}

/// Records a request that failed.
pub(super) fn record(in_flight: InFlight, key: &ModelKey, failure: &Failure) {
    let line = failure.status(false);
    infer::log(key, failure, &line);
    in_flight.fail(line.label);
}

/// Lets a request in, or says that there are too many. Its message is in memory already, but soon gone when it is refused.
async fn admit(app: &App, key: ModelKey, head: &Head, message: ModelInferRequest, began: Instant) -> Result<Answered> {
    let _request = app.services.admission.enter()?;
    let mut body = app.services.admission.body();
    body.add(message_size(&message))?;
    // tonic gathers a message's frames in one buffer.
    count_copy("grpc_message_in", message.raw_input_contents.iter().map(bytes::Bytes::len).sum());
    let answered = run(app, key, head, message, began, &mut body).await?;
    // tonic writes a message into one buffer.
    count_copy("grpc_message_out", answered.message.raw_output_contents.iter().map(bytes::Bytes::len).sum());
    Ok(answered)
}

/// Runs one request, traced if it is to be. What it takes of shared memory counts in `share`.
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
    let mut wire = decode::request(message)?;
    let shared_outputs = shared_memory::fetch(app, &mut wire, share).await?;
    let inputs = std::mem::take(&mut wire.inputs);
    let mut request = InferRequest {
        model: key.clone(),
        id: wire.id.clone(),
        inputs,
        outputs: wire.outputs.iter().map(|output| output.name.clone()).collect(),
        parameters: std::mem::take(&mut wire.parameters),
        deadline,
        trace: None,
    };
    if let Some(span) = &mut span {
        span.admit(&mut request);
    }
    let response: InferResponse = app.services.inference.infer(request).await?;
    if let Some(span) = &mut span {
        span.answer(&response);
    }
    shared_memory::store(shared_outputs, &response).await?;
    let mut headers = HeaderMap::new();
    if let Some(outcome) = &response.cache {
        infer::cache_headers(&mut headers, outcome);
    }
    let name = infer::name(&key, &response);
    let mut message = encode::response(&response, wire.id, name, &wire.outputs, app.config.max_response_size)?;
    // The message is written after this call.
    if let (Some(guard), Some(last)) = (response.guard, message.raw_output_contents.last_mut()) {
        *last = body::guarded(std::mem::take(last), guard);
    }
    Ok(Answered { message, headers })
}

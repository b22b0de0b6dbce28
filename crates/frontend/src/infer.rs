//! One inference request, from its head and body to its answer: the same for every HTTP surface.

use std::borrow::Borrow;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use inference::{
    CacheOutcome, DataType, Description, Error, ErrorKind, InferResponse, LoadTiming, ModelInfo, ModelKey, NamedTensor,
    Result, TargetModel, Trace,
};

use crate::App;
use crate::body::{self, Frames, Whole};
use crate::codec::{self, Announce, Answer, Encoded, Framing, Layout, WireRequest};
use crate::decoupled;
use crate::shared_memory;
use crate::status::{Failure, Status};
use crate::telemetry::{InFlight, Surface, count_copy};
use crate::trace::RequestSpan;
use crate::{encoding, generate, time_limit};

/// The header that names an archive.
pub(crate) const TARGET_MODEL: HeaderName = HeaderName::from_static("x-amzn-sagemaker-target-model");
const CACHE: HeaderName = HeaderName::from_static("x-panoply-cache");
const VERSION: HeaderName = HeaderName::from_static("x-panoply-version");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Bytes of JSON (or of tensors to be written as JSON) that take longer than a hop to another thread is worth saving.
pub(crate) const LONG_JSON: usize = 1 << 20;

/// What the bodies of a request and of its answer look like.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// KServe v2, with binary answers announced as the surface does it.
    Tensors(Announce),
    /// Triton's `generate`.
    Generate,
}

/// A request as a surface hands it over.
pub(crate) struct Invocation {
    pub(crate) surface: Surface,
    /// Which model; an error when the client named one that cannot be.
    pub(crate) key: Result<ModelKey>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// What bodies look like.
    pub(crate) form: Form,
    /// The surface's own bound on the time to an answer; the client's is in the head.
    pub(crate) time_limit: Option<Duration>,
}

/// Answers a request; `refuse` puts a failure into the surface's shape. Records its one outcome.
pub(crate) async fn answer(
    app: &App,
    invocation: Invocation,
    refuse: impl FnOnce(&Failure, &Status) -> Response,
) -> Response {
    let in_flight = InFlight::begin(invocation.surface);
    let key = invocation.key.clone().unwrap_or_default();
    let mut span = app.services.tracing.begin(&key, &invocation.headers, invocation.surface, in_flight.began());
    let outcome = admit(app, invocation, in_flight.began(), span.as_mut()).await;
    if let Some(span) = span {
        span.end(outcome.as_ref().err());
    }
    match outcome {
        Ok(response) => {
            in_flight.succeed();
            response
        }
        Err(failure) => {
            let status = failure.status(is_loading(app, &key, &failure));
            log(&key, &failure, &status);
            in_flight.fail(status.label);
            let refusal = crate::reply::decorate(refuse(&failure, &status), &status, &failure);
            with_version(app, &key, refusal)
        }
    }
}

/// Whether time ran out while the model was not in memory.
pub(crate) fn is_loading(app: &App, key: &ModelKey, failure: &Failure) -> bool {
    let timed_out = matches!(failure, Failure::Error(error) if error.kind() == ErrorKind::DeadlineExceeded);
    timed_out && !app.services.control.is_model_ready(key)
}

pub(crate) fn log(key: &ModelKey, failure: &Failure, status: &Status) {
    match failure {
        Failure::Error(error) if error.kind() == ErrorKind::Internal => {
            tracing::error!(model = %key, outcome = status.label, "{error:#}");
        }
        _ => tracing::debug!(model = %key, outcome = status.label, "{}", failure.message()),
    }
}

/// Lets a request in, or says that there are too many.
async fn admit(
    app: &App,
    invocation: Invocation,
    began: Instant,
    span: Option<&mut RequestSpan>,
) -> Result<Response, Failure> {
    match app.services.admission.enter() {
        Ok(_share) => match invocation.form {
            Form::Tensors(announce) => run(app, invocation, announce, began, span).await,
            Form::Generate => generate::run(app, invocation, began, span).await,
        },
        Err(error) => Err(error.into()),
    }
}

async fn run(
    app: &App,
    invocation: Invocation,
    announce: Announce,
    began: Instant,
    mut span: Option<&mut RequestSpan>,
) -> Result<Response, Failure> {
    let key = invocation.key?;
    let framing = Framing::from_headers(&invocation.headers, announce)?;
    // bytes ─► one buffer
    let bounds = app.bounds(app.config.max_request_size);
    let Whole { bytes: body, mut share } =
        body::read(&invocation.headers, invocation.body, bounds, framing.tensors_at()).await?;
    // ─► what the client asks for
    let deadline = time_limit::deadline(&invocation.headers, invocation.time_limit, began)?;
    let trace = span.as_deref().map(RequestSpan::inside);
    let (mut wire, found) = decode(app, &key, framing.layout, body, deadline, trace).await?;
    app.forward(&invocation.headers, &mut wire.parameters);
    let shared_outputs = shared_memory::fetch(app, &mut wire, &mut share).await?;
    let mut request = wire.take_request(key.clone(), deadline);
    if let Some(span) = &mut span {
        span.admit(&mut request);
    }
    // ─► the models ─►
    let answered = app.services.inference.infer(request).await;
    let mut response = answered.map_err(|error| decoupled::explain(app, &key, decoupled::HTTP, error))?;
    response.cache = found.or(response.cache);
    if let Some(span) = &mut span {
        span.answer(&response);
    }
    let cache = response.cache.clone();
    let (asked, max_size) = (&invocation.headers, app.config.max_response_size);
    // ─► bytes
    let written = async {
        shared_memory::store(&shared_outputs, &response).await?;
        write(asked, max_size, &key, framing, wire, response).await
    };
    written.await.map_err(|error| of_found(cache.as_ref(), error).into())
}

/// Writes the answer of a request whose head is `asked`.
async fn write(
    asked: &HeaderMap,
    max_size: u64,
    key: &ModelKey,
    framing: Framing,
    wire: WireRequest,
    response: InferResponse,
) -> Result<Response> {
    let mut headers = HeaderMap::new();
    cache_headers(&mut headers, response.cache.as_ref());
    let binary = wire.binary_output.unwrap_or(framing.prefers_binary);
    // An answer that is all JSON, or compressed, shares no memory with the model.
    let guard = response.guard.clone();
    let Encoded { json_length, parts } = encode(max_size, key, wire, binary, response).await?;
    codec::announce(&mut headers, framing.announce, json_length);
    let (parts, is_compressed) = match encoding::of_answer(asked) {
        Some(encoding) => encoding::compress(encoding, parts, &mut headers).await,
        None => (parts, false),
    };
    let guard = guard.filter(|_| json_length.is_some() && !is_compressed);
    let mut reply = Response::new(Body::new(Frames::new(parts).guarded(guard)));
    *reply.headers_mut() = headers;
    Ok(reply)
}

/// What the client asks for; and where the model was found, when reading the request took loading it.
pub(crate) async fn decode(
    app: &App,
    key: &ModelKey,
    layout: Layout,
    body: Bytes,
    deadline: Option<Instant>,
    trace: Option<Trace>,
) -> Result<(WireRequest, Option<CacheOutcome>)> {
    let max_depth = app.max_json_depth();
    let json_length = match layout {
        Layout::Raw => {
            let Description { model, cache } = app.services.control.describe(key, deadline, trace).await?;
            let input = raw_input(key, &model, body).map_err(|error| of_found(cache.as_ref(), error))?;
            let inputs = vec![input];
            return Ok((WireRequest { inputs, ..WireRequest::default() }, cache));
        }
        Layout::Json => body.len(),
        Layout::Binary(length) => length,
    };
    let parse = move || codec::parse(&body, layout, max_depth);
    let wire = if json_length > LONG_JSON { off_thread(parse).await } else { parse() };
    wire.map(|wire| (wire, None))
}

pub(crate) async fn encode(
    max_size: u64,
    key: &ModelKey,
    wire: impl Borrow<WireRequest> + Send + 'static,
    binary: bool,
    response: InferResponse,
) -> Result<Encoded> {
    let model_name = name(key, &response);
    let asked = wire.borrow();
    let answer = Answer { id: &asked.id, model_name: &model_name, choices: &asked.outputs, binary, max_size };
    if answer.converted_bytes(&response) <= LONG_JSON {
        return codec::encode(&response, &answer);
    }
    let job = move || {
        let wire = wire.borrow();
        let answer = Answer { id: &wire.id, model_name: &model_name, choices: &wire.outputs, binary, max_size };
        codec::encode(&response, &answer)
    };
    off_thread(job).await
}

/// Runs a job that would hold up other requests' threads for milliseconds on a thread of its own.
pub(crate) async fn off_thread<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(job).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The name that the client used, or the model's own where it used none.
pub(crate) fn name(key: &ModelKey, response: &InferResponse) -> String {
    let name = key.to_string();
    match &response.model {
        Some(model) if name.is_empty() => model.spec.name.to_string(),
        _ => name,
    }
}

fn raw_input(key: &ModelKey, model: &ModelInfo, body: Bytes) -> Result<NamedTensor> {
    match model.spec.inputs.as_slice() {
        [input] => {
            if input.datatype == DataType::Bytes {
                // The element's length has to stand in front of it.
                count_copy("raw_bytes", body.len());
            }
            codec::raw_input(&input.name, input.datatype, &model.spec.full_shape(&input.dims), body)
        }
        inputs => Err(Error::invalid_argument(format!(
            "raw binary request: model '{key}' has {} inputs, and only a model of exactly 1 can be called without a JSON \
             header",
            inputs.len()
        ))),
    }
}

/// Says what is known of the model that was found, and how; nothing where nothing is known.
pub(crate) fn cache_headers(headers: &mut HeaderMap, outcome: Option<&CacheOutcome>) {
    let Some(outcome) = outcome else { return };
    set(headers, CACHE, &outcome.tier.to_string());
    version_header(headers, &outcome.version);
    if let Some(LoadTiming { download, unpack, load }) = outcome.load {
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
        let (download, unpack, load) = (milliseconds(download), milliseconds(unpack), milliseconds(load));
        set(headers, SERVER_TIMING, &format!("download;dur={download:.3}, unpack;dur={unpack:.3}, load;dur={load:.3}"));
    }
}

/// Says which version of its archive an answer comes from.
pub(crate) fn version_header(headers: &mut HeaderMap, version: &str) {
    set(headers, VERSION, version);
}

/// An answer that says which version of its archive it is about: that in memory, where it says no other yet.
pub(crate) fn with_version(app: &App, key: &ModelKey, mut answer: Response) -> Response {
    if !answer.headers().contains_key(VERSION)
        && let Some(version) = app.services.control.version_in_memory(key)
    {
        version_header(answer.headers_mut(), &version);
    }
    answer
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// An error about an answer, or a request, of a model that was found as `cache` says.
pub(crate) fn of_found(cache: Option<&CacheOutcome>, error: Error) -> Error {
    match cache {
        Some(outcome) => error.with_version(&outcome.version),
        None => error,
    }
}

/// The archive that the head names, if it names one.
pub(crate) fn target(headers: &HeaderMap) -> Result<Option<TargetModel>> {
    let Some(value) = headers.get(&TARGET_MODEL) else { return Ok(None) };
    let key = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Error::invalid_argument("the header X-Amzn-SageMaker-Target-Model is not UTF-8"))?;
    TargetModel::new(key).map(Some)
}

/// The model of `/invocations`: the archive that the head names, or the only model there is.
pub(crate) fn target_or_only(headers: &HeaderMap) -> Result<ModelKey> {
    Ok(target(headers)?.map_or_else(ModelKey::default, ModelKey::of_target))
}

//! Triton's `generate` and `generate_stream`: flat JSON in; one flat JSON answer, or one server-sent event per response.

use std::convert::Infallible;
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::{HeaderMap, HeaderValue, header};
use inference::{CacheOutcome, InferRequest, InferResponse, ModelKey, Result, Trace};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::admission::{BodyShare, Share};
use crate::body::{self, Whole};
use crate::infer::{self, Invocation, LONG_JSON, off_thread};
use crate::outcome::Outcome;
use crate::status::{self, Failure, Status};
use crate::telemetry::InFlight;
use crate::trace::RequestSpan;
use crate::{App, Shared, codec, encoding, reply, time_limit};

/// What server-sent events are called.
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// A request that was read, and what is told about it in its answers.
struct Prompt {
    request: InferRequest,
    /// Where the model was found while reading the request took knowing it.
    found: Option<CacheOutcome>,
    share: BodyShare,
}

/// Answers `generate`: the model must answer exactly once.
pub(crate) async fn run(
    app: &App,
    invocation: Invocation,
    began: Instant,
    mut span: Option<&mut RequestSpan>,
) -> Result<Response, Failure> {
    let accepted = encoding::of_answer(&invocation.headers);
    let trace = span.as_deref().map(RequestSpan::inside);
    let Prompt { mut request, found, share: _share } = read(app, invocation, began, trace).await?;
    if let Some(span) = &mut span {
        span.admit(&mut request);
    }
    let (key, id) = (request.model.clone(), request.id.clone());
    let mut responses = app.services.inference.infer_stream(request);
    let mut response = responses.next().await.ok_or_else(codec::not_one_response)??;
    if responses.next().await.transpose()?.is_some() {
        return Err(codec::not_one_response().into());
    }
    response.cache = found.or(response.cache);
    if let Some(span) = &mut span {
        span.answer(&response);
    }
    let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    infer::cache_headers(&mut headers, response.cache.as_ref());
    let cache = response.cache.clone();
    let text = write(app, &key, id, response).await.map_err(|error| infer::of_found(cache.as_ref(), error))?;
    let parts = match accepted {
        Some(encoding) => encoding::compress(encoding, vec![text.into()], &mut headers).await.0,
        None => vec![text.into()],
    };
    let mut reply = Response::new(Body::new(body::Frames::new(parts)));
    *reply.headers_mut() = headers;
    Ok(reply)
}

/// Answers `generate_stream`. The first response decides on the status; later failures can only be events.
pub(crate) async fn stream(
    app: Shared,
    invocation: Invocation,
    refuse: impl FnOnce(&Failure, &Status) -> Response,
) -> Response {
    let in_flight = InFlight::begin(invocation.surface);
    let key = invocation.key.clone().unwrap_or_default();
    let mut span = app.services.tracing.begin(&key, &invocation.headers, invocation.surface, in_flight.began());
    let admitted = app.services.admission.enter().map_err(Failure::from);
    let trace = span.as_ref().map(RequestSpan::inside);
    let prompt = match admitted {
        Ok(share) => read(&app, invocation, in_flight.began(), trace).await.map(|prompt| (prompt, share)),
        Err(failure) => Err(failure),
    };
    match prompt {
        Ok((mut prompt, share)) => {
            if let Some(span) = &mut span {
                span.admit(&mut prompt.request);
            }
            let (sender, events) = mpsc::channel(1);
            let pump = tokio::spawn(pump(app, prompt, Outcome { in_flight, span }, share, sender));
            Events { events, pump: Some(AbortOnDropHandle::new(pump)) }.answer().await
        }
        Err(failure) => {
            let status = failure.status(false);
            Outcome { in_flight, span }.fail(&key, &failure, &status);
            infer::with_version(&app, &key, reply::decorate(refuse(&failure, &status), &status, &failure))
        }
    }
}

async fn read(app: &App, invocation: Invocation, began: Instant, trace: Option<Trace>) -> Result<Prompt, Failure> {
    let (key, headers) = (invocation.key?, invocation.headers);
    let bounds = app.bounds(app.config.max_request_size);
    let Whole { bytes: body, share } = body::read(&headers, invocation.body, bounds, None).await?;
    let deadline = time_limit::deadline(&headers, invocation.time_limit, began)?;
    let described = app.services.control.describe(&key, deadline, trace).await?;
    let (spec, max_depth) = (described.model.spec.clone(), app.max_json_depth());
    let is_long = body.len() > LONG_JSON;
    let parse = move || codec::parse_generate(&body, &spec, max_depth);
    let parsed = if is_long { off_thread(parse).await } else { parse() };
    let mut wire = parsed.map_err(|error| infer::of_found(described.cache.as_ref(), error))?;
    app.forward(&headers, &mut wire.parameters);
    let request = wire.take_request(key, deadline);
    // A model that is found in memory says so itself.
    let found = described.cache.filter(|outcome| outcome.load.is_some());
    Ok(Prompt { request, found, share })
}

async fn write(app: &App, key: &ModelKey, id: String, response: InferResponse) -> Result<Vec<u8>> {
    let (name, max_size) = (infer::name(key, &response), app.config.max_response_size);
    let size: usize = response.outputs.iter().map(|output| output.tensor.data().len()).sum();
    let job = move || codec::encode_generated(&response, &id, &name, max_size);
    if size > LONG_JSON { off_thread(job).await } else { job() }
}

/// One event on its way to the client.
struct Event {
    bytes: Bytes,
    failed: Option<(Failure, Status)>,
    cache: Option<CacheOutcome>,
}

impl Event {
    fn of(json: &[u8], cache: Option<CacheOutcome>) -> Self {
        Event { bytes: [b"data: ", json, b"\n\n"].concat().into(), failed: None, cache }
    }

    fn of_failure(failure: Failure, status: Status) -> Self {
        let event = Event::of(&reply::error_json(failure.message()), None);
        Event { failed: Some((failure, status)), ..event }
    }
}

/// Runs the request in a task of its own, one event ahead of the client at most, and records its one outcome. Ends with the
/// first error, or when nobody takes events any more.
async fn pump(app: Shared, prompt: Prompt, mut outcome: Outcome, _admitted: Share, events: mpsc::Sender<Event>) {
    let Prompt { request, mut found, share: _share } = prompt;
    let (key, id) = (request.model.clone(), request.id.clone());
    let mut responses = app.services.inference.infer_stream(request);
    while let Some(response) = responses.next().await {
        let event = match response {
            Ok(mut response) => {
                response.cache = found.take().or(response.cache);
                if let Some(span) = &mut outcome.span {
                    span.answer(&response);
                }
                let cache = response.cache.clone();
                match write(&app, &key, id.clone(), response).await {
                    Ok(json) => Ok(Event::of(&json, cache)),
                    Err(error) => Err(Failure::from(infer::of_found(cache.as_ref(), error))),
                }
            }
            Err(error) => Err(error.into()),
        };
        match event {
            Ok(event) => match events.send(event).await {
                Ok(()) => {}
                Err(_) => return,
            },
            Err(failure) => {
                let status = failure.status(false);
                outcome.fail(&key, &failure, &status);
                // A client that is gone needs no error.
                let _ = events.send(Event::of_failure(failure, status)).await;
                return;
            }
        }
    }
    outcome.succeed();
}

/// What a client is still to be sent. Dropping it ends the task behind it.
struct Events {
    events: mpsc::Receiver<Event>,
    pump: Option<AbortOnDropHandle<()>>,
}

impl Events {
    /// The next event; a panic behind them is the last.
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.events.recv().await {
            return Some(event);
        }
        let panic = self.pump.take()?.await.err()?.try_into_panic().ok()?;
        let failure = Failure::from(reply::log_panic(&*panic));
        let status = failure.status(false);
        Some(Event::of_failure(failure, status))
    }

    /// The answer, once its first event is there.
    async fn answer(mut self) -> Response {
        let mut first = self.next().await;
        let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, EVENTS)]);
        let failed = first.as_mut().and_then(|event| event.failed.take());
        infer::cache_headers(&mut headers, first.as_ref().and_then(|event| event.cache.as_ref()));
        let later = stream::unfold(self, async |mut events| events.next().await.map(|event| (event, events)));
        let all = stream::iter(first).chain(later).map(|event| Ok::<_, Infallible>(event.bytes));
        let mut reply = Response::new(Body::from_stream(all));
        *reply.headers_mut() = headers;
        let Some((failure, status)) = failed else { return reply };
        *reply.status_mut() = status::code(status.http);
        reply::decorate(reply, &status, &failure)
    }
}

//! `InvokeEndpointWithResponseStream`: one part for each of the model's responses, as soon as it is made.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use inference::{Error, InferRequest, InferResponse, ModelKey, Origin, Result, TargetModel};
use tokio::time::timeout_at;

use super::runtime::{check_endpoint, complete, echoed, refuse, unless_it_panics};
use super::{Segment, event_stream, segment};
use crate::admission::{BodyShare, Share};
use crate::body::{self, Whole};
use crate::codec::{self, Announce, Encoded, Framing, WireRequest};
use crate::infer;
use crate::outcome::Outcome;
use crate::reply;
use crate::shared_memory::{self, SharedOutput};
use crate::status::Failure;
use crate::telemetry::{InFlight, Surface};
use crate::time_limit;
use crate::trace::RequestSpan;
use crate::{App, Shared};

/// What the parts are, as this operation says it both ways.
const ACCEPT: HeaderName = HeaderName::from_static("x-amzn-sagemaker-accept");
const PARTS: HeaderName = HeaderName::from_static("x-amzn-sagemaker-content-type");
/// SDKs let this operation name no target model, only a component of the endpoint.
const COMPONENT: HeaderName = HeaderName::from_static("x-amzn-sagemaker-inference-component");
/// JSON documents, each on a line of its own, so that clients that join the parts can tell them apart.
const JSON_LINES: HeaderValue = HeaderValue::from_static("application/jsonlines");

/// `POST /endpoints/{endpoint}/invocations-response-stream`. Up to the first response failures have statuses; after it they
/// are exceptions within the stream.
pub(super) async fn invoke(State(app): State<Shared>, endpoint: Segment, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let echoed = echoed(&app, &head.headers);
    let endpoint = segment(endpoint).and_then(|endpoint| check_endpoint(&app, &endpoint));
    let key = endpoint.and_then(|()| key(&head.headers));
    complete(echoed, respond(app, key, head.headers, body)).await
}

async fn respond(app: Shared, key: Result<ModelKey>, headers: HeaderMap, body: Body) -> Response {
    let in_flight = InFlight::begin(Surface::Runtime);
    let name = key.clone().unwrap_or_default();
    let mut span = app.services.tracing.begin(&name, &headers, Surface::Runtime, in_flight.began());
    let begun = match deadline(&app, &headers, in_flight.began()) {
        Ok(deadline) => {
            let beginning = begin(app.clone(), key, headers, body, deadline, span.as_mut());
            let late = || {
                Error::deadline_exceeded(
                    "there was no response within the time that --invocation-timeout or the client allows",
                )
            };
            timeout_at(deadline.into(), beginning).await.unwrap_or_else(|_elapsed| Err(late().into()))
        }
        Err(error) => Err(error.into()),
    };
    match begun {
        Ok(begun) => answer(begun, Outcome { in_flight, span }),
        Err(failure) => {
            let status = failure.status(infer::is_loading(&app, &name, &failure));
            Outcome { in_flight, span }.fail(&name, &failure, &status);
            infer::with_version(&app, &name, reply::decorate(refuse(&failure, &status), &status, &failure))
        }
    }
}

/// When there has to be a first response.
fn deadline(app: &App, headers: &HeaderMap, began: Instant) -> Result<Instant> {
    let asked = time_limit::of_request(headers)?;
    Ok(began + asked.unwrap_or(Duration::MAX).min(app.config.invocation_timeout))
}

fn key(headers: &HeaderMap) -> Result<ModelKey> {
    if let Some(target) = infer::target(headers)? {
        return Ok(ModelKey::of_target(target));
    }
    let Some(component) = headers.get(COMPONENT) else { return Ok(ModelKey::default()) };
    let component = component
        .to_str()
        .map_err(|_| Error::invalid_argument("the header X-Amzn-SageMaker-Inference-Component is not ASCII"))?;
    TargetModel::new(component).map(ModelKey::of_target)
}

/// One part of the answer; tensors are the response's own bytes.
struct Part {
    bytes: Vec<Bytes>,
    content_type: HeaderValue,
}

/// A request whose first response is there, if it has any.
struct Begun {
    first: Option<Part>,
    /// What the first response says about the model.
    headers: HeaderMap,
    asked: Asked,
    responses: BoxStream<'static, Result<InferResponse>>,
}

async fn begin(
    app: Shared,
    key: Result<ModelKey>,
    mut headers: HeaderMap,
    body: Body,
    deadline: Instant,
    mut span: Option<&mut RequestSpan>,
) -> Result<Begun, Failure> {
    let admitted = app.services.admission.enter()?;
    if let Some(accept) = headers.get(ACCEPT).cloned() {
        headers.insert(header::ACCEPT, accept);
    }
    let key = key?;
    let framing = Framing::from_headers(&headers, Announce::ContentType)?;
    let bounds = app.bounds(app.config.max_request_size);
    let Whole { bytes, mut share } = body::read(&headers, body, bounds, framing.tensors_at()).await?;
    let trace = span.as_deref().map(RequestSpan::inside);
    let (mut wire, found) = infer::decode(&app, &key, framing.layout, bytes, Some(deadline), trace).await?;
    app.forward(&headers, &mut wire.parameters);
    let shared_outputs = shared_memory::fetch(&app, &mut wire, &mut share).await?;
    let mut request = wire.take_request(key.clone(), None);
    // The responses after the first take as long as they take.
    request.load_deadline = Some(deadline);
    if let Some(span) = &mut span {
        span.admit(&mut request);
    }
    let binary = wire.binary_output.unwrap_or(framing.prefers_binary);
    let max_size = app.config.max_response_size;
    let asked = Asked { key, wire: Arc::new(wire), binary, max_size, shared_outputs, _held: (admitted, share) };
    let mut responses = responses(app, request);
    let mut headers = HeaderMap::new();
    let Some(response) = responses.next().await else { return Ok(Begun { first: None, headers, asked, responses }) };
    let mut response = response?;
    response.cache = found.or(response.cache);
    if let Some(span) = &mut span {
        span.answer(&response);
    }
    infer::cache_headers(&mut headers, response.cache.as_ref());
    let cache = response.cache.clone();
    let first = asked.part(response).await.map_err(|error| infer::of_found(cache.as_ref(), error))?;
    let first = Some(first);
    Ok(Begun { first, headers, asked, responses })
}

/// The models' responses, which go on when the call has returned.
fn responses(app: Shared, request: InferRequest) -> BoxStream<'static, Result<InferResponse>> {
    Box::pin(async_stream::stream! {
        let mut responses = app.services.inference.infer_stream(request);
        while let Some(response) = responses.next().await {
            yield response;
        }
    })
}

/// What a request's responses are written by.
struct Asked {
    key: ModelKey,
    wire: Arc<WireRequest>,
    binary: bool,
    max_size: u64,
    shared_outputs: Vec<SharedOutput>,
    _held: (Share, BodyShare),
}

impl Asked {
    async fn part(&self, response: InferResponse) -> Result<Part> {
        shared_memory::store(&self.shared_outputs, &response).await?;
        let (wire, guard) = (self.wire.clone(), response.guard.clone());
        let encoded = infer::encode(self.max_size, &self.key, wire, self.binary, response).await?;
        let Encoded { json_length, parts: mut bytes } = encoded;
        let content_type = match json_length {
            Some(_) => {
                body::guard_last(&mut bytes, guard);
                let mut said = HeaderMap::new();
                codec::announce(&mut said, Announce::ContentType, json_length);
                said.remove(header::CONTENT_TYPE).unwrap_or(JSON_LINES)
            }
            None => {
                bytes.push(Bytes::from_static(b"\n"));
                JSON_LINES
            }
        };
        Ok(Part { bytes, content_type })
    }

    /// The part for the next response, if there is one more. A panic is an error like others.
    async fn next(&self, responses: &mut BoxStream<'static, Result<InferResponse>>) -> Option<Result<Part>> {
        let next = async {
            match responses.next().await? {
                Ok(response) => Some(self.part(response).await),
                Err(error) => Some(Err(error)),
            }
        };
        unless_it_panics(next).await.unwrap_or_else(|error| Some(Err(error)))
    }
}

fn answer(begun: Begun, outcome: Outcome) -> Response {
    let Begun { first, mut headers, asked, mut responses } = begun;
    headers.insert(PARTS, first.as_ref().map_or(JSON_LINES, |part| part.content_type.clone()));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(event_stream::CONTENT_TYPE));
    let frames = async_stream::stream! {
        let mut next: Option<Result<Part>> = first.map(Ok);
        while let Some(part) = next {
            match part {
                Ok(part) => {
                    for bytes in event_stream::payload_parts(part.bytes) {
                        yield bytes;
                    }
                }
                Err(error) => {
                    let is_model = error.origin() == Origin::Model;
                    let failure = Failure::from(error);
                    let status = failure.status(false);
                    outcome.fail(&asked.key, &failure, &status);
                    yield event_stream::exception(is_model, failure.message());
                    return;
                }
            }
            next = asked.next(&mut responses).await;
        }
        outcome.succeed();
    };
    let mut response = Response::new(Body::from_stream(frames.map(Ok::<_, Infallible>)));
    *response.headers_mut() = headers;
    response
}

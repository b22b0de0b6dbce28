//! `InvokeEndpointWithResponseStream`: one part for each of the model's responses, as soon as it is made.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use inference::{Error, InferRequest, InferResponse, ModelKey, Origin, Result, TargetModel};
use tokio::time::timeout;

use super::runtime::{check_endpoint, echoed, refuse};
use super::{Segment, event_stream, segment};
use crate::admission::{BodyShare, Share};
use crate::body::{self, Whole};
use crate::codec::{self, Announce, Encoded, Framing, WireRequest};
use crate::infer;
use crate::outcome::Outcome;
use crate::shared_memory::{self, SharedOutput};
use crate::status::Failure;
use crate::telemetry::{InFlight, Surface};
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
    let in_flight = InFlight::begin(Surface::Runtime);
    let name = key.clone().unwrap_or_default();
    let mut span = app.services.tracing.begin(&name, &head.headers, Surface::Runtime, in_flight.began());
    let limit = app.config.invocation_timeout;
    let begun = match timeout(limit, begin(app.clone(), key, head.headers, body, span.as_mut())).await {
        Ok(begun) => begun,
        Err(_elapsed) => Err(Error::deadline_exceeded(format!(
            "there was no response within the {limit:?} that --invocation-timeout allows"
        ))
        .into()),
    };
    let mut response = match begun {
        Ok(begun) => answer(name, begun, Outcome { in_flight, span }),
        Err(failure) => {
            let status = failure.status(infer::is_loading(&app, &name, &failure));
            Outcome { in_flight, span }.fail(&name, &failure, &status);
            refuse(&failure, &status)
        }
    };
    response.headers_mut().extend(echoed);
    response
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

/// One part of the answer.
struct Part {
    bytes: Vec<u8>,
    content_type: HeaderValue,
    cache: HeaderMap,
}

/// A request whose first response is there, if it has any.
struct Begun {
    first: Option<Part>,
    parts: BoxStream<'static, Result<Part>>,
}

async fn begin(
    app: Shared,
    key: Result<ModelKey>,
    mut headers: HeaderMap,
    body: Body,
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
    let (mut wire, _) = infer::decode(&app, &key, framing.layout, bytes, None).await?;
    app.forward(&headers, &mut wire.parameters);
    let shared_outputs = shared_memory::fetch(&app, &mut wire, &mut share).await?;
    let mut request = wire.take_request(key.clone(), None);
    if let Some(span) = &mut span {
        span.admit(&mut request);
    }
    let binary = wire.binary_output.unwrap_or(framing.prefers_binary);
    let asked = Asked { app, key, wire, binary, shared_outputs, _held: (admitted, share) };
    let mut parts = asked.parts(request);
    let first = parts.next().await.transpose()?;
    Ok(Begun { first, parts })
}

/// What a request's responses are written by.
struct Asked {
    app: Shared,
    key: ModelKey,
    wire: WireRequest,
    binary: bool,
    shared_outputs: Vec<SharedOutput>,
    _held: (Share, BodyShare),
}

impl Asked {
    fn parts(self, request: InferRequest) -> BoxStream<'static, Result<Part>> {
        Box::pin(async_stream::try_stream! {
            let mut responses = self.app.services.inference.infer_stream(request);
            while let Some(response) = responses.next().await {
                let part = self.part(&self.app, response?).await?;
                yield part;
            }
        })
    }

    async fn part(&self, app: &App, response: InferResponse) -> Result<Part> {
        shared_memory::store(&self.shared_outputs, &response).await?;
        let mut headers = HeaderMap::new();
        if let Some(outcome) = &response.cache {
            infer::cache_headers(&mut headers, outcome);
        }
        let mut said = HeaderMap::new();
        let (wire, max_size) = (self.wire.clone(), app.config.max_response_size);
        let Encoded { json_length, parts } = infer::encode(max_size, &self.key, wire, self.binary, response).await?;
        codec::announce(&mut said, Announce::ContentType, json_length);
        let mut bytes = parts.concat();
        let content_type = match json_length {
            Some(_) => said.remove(header::CONTENT_TYPE).unwrap_or(JSON_LINES),
            None => {
                bytes.push(b'\n');
                JSON_LINES
            }
        };
        Ok(Part { bytes, content_type, cache: headers })
    }
}

fn answer(key: ModelKey, begun: Begun, outcome: Outcome) -> Response {
    let Begun { first, mut parts } = begun;
    let mut headers = first.as_ref().map(|part| part.cache.clone()).unwrap_or_default();
    headers.insert(PARTS, first.as_ref().map_or(JSON_LINES, |part| part.content_type.clone()));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(event_stream::CONTENT_TYPE));
    let frames = async_stream::stream! {
        if let Some(part) = first {
            yield Bytes::from(event_stream::payload_parts(&part.bytes));
        }
        while let Some(part) = parts.next().await {
            match part {
                Ok(part) => yield Bytes::from(event_stream::payload_parts(&part.bytes)),
                Err(error) => {
                    let is_model = error.origin() == Origin::Model;
                    let failure = Failure::from(error);
                    let status = failure.status(false);
                    outcome.fail(&key, &failure, &status);
                    yield Bytes::from(event_stream::exception(is_model, failure.message()));
                    return;
                }
            }
        }
        outcome.succeed();
    };
    let mut response = Response::new(Body::from_stream(frames.map(Ok::<_, Infallible>)));
    *response.headers_mut() = headers;
    response
}

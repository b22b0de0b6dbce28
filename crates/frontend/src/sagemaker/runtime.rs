//! The SageMaker runtime API, as an unchanged AWS SDK calls it with `endpoint_url` set.
//!
//! SDKs choose their exception by the header `x-amzn-ErrorType`, never by the status alone. Signatures are not checked.

use std::panic::AssertUnwindSafe;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use inference::{Error, Result};
use serde::Serialize;

use super::{Segment, segment, stream};
use crate::codec::Announce;
use crate::infer::{self, Form, Invocation};
use crate::restriction::{Api, Guarded};
use crate::status::{self, Failure, Status};
use crate::telemetry::Surface;
use crate::{App, Shared, reply};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const INVOKED_VARIANT: HeaderName = HeaderName::from_static("x-amzn-invoked-production-variant");
const TARGET_VARIANT: HeaderName = HeaderName::from_static("x-amzn-sagemaker-target-variant");
const CUSTOM_ATTRIBUTES: HeaderName = HeaderName::from_static("x-amzn-sagemaker-custom-attributes");

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorBody<'a> {
    message: &'a str,
    #[serde(flatten)]
    model: Option<ModelErrorBody<'a>>,
}

/// What ModelError says in addition.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ModelErrorBody<'a> {
    original_status_code: u16,
    original_message: &'a str,
    log_stream_arn: &'static str,
}

/// Adds the routes of this API.
pub(crate) fn runtime_routes(routes: Guarded<'_>) -> Guarded<'_> {
    routes
        .route(Api::Inference, "/endpoints/{endpoint}/invocations", post(invoke))
        .route(Api::Inference, "/endpoints/{endpoint}/invocations-response-stream", post(stream::invoke))
        .route(Api::Inference, "/endpoints/{endpoint}/async-invocations", post(not_yet))
}

/// `InvokeEndpoint`.
async fn invoke(State(app): State<Shared>, endpoint: Segment, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let endpoint = segment(endpoint).and_then(|endpoint| check_endpoint(&app, &endpoint));
    let key = endpoint.and_then(|()| infer::target_or_only(&head.headers));
    let echoed = echoed(&app, &head.headers);
    let invocation = Invocation {
        surface: Surface::Runtime,
        key,
        headers: head.headers,
        body,
        form: Form::Tensors(Announce::ContentType),
        time_limit: Some(app.config.invocation_timeout),
    };
    complete(echoed, infer::answer(&app, invocation, refuse)).await
}

/// An answer with the headers of every answer; where making it panics, SDKs learn of that too.
pub(super) async fn complete(echoed: HeaderMap, answer: impl Future<Output = Response>) -> Response {
    let answered = unless_it_panics(answer).await;
    let mut response = answered.unwrap_or_else(|error| {
        let status = status::of_error(&error, false);
        refuse(&error.into(), &status)
    });
    response.headers_mut().extend(echoed);
    response
}

/// What a future comes to. A panic is logged, and nothing that it could have left half done is looked at again.
///
/// # Errors
/// Internal where it panics.
pub(super) async fn unless_it_panics<T>(future: impl Future<Output = T>) -> Result<T> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| reply::log_panic(&*panic))
}

/// `InvokeEndpointAsync`.
async fn not_yet(State(app): State<Shared>, request: Request) -> Response {
    let operation = request.uri().path().rsplit('/').next().unwrap_or_default();
    let error = Error::unsupported(format!("'{operation}' is not supported by this server; use 'invocations'"));
    let status = status::of_error(&error, false);
    let mut response = refuse(&error.into(), &status);
    response.headers_mut().extend(echoed(&app, request.headers()));
    response
}

pub(super) fn check_endpoint(app: &App, endpoint: &str) -> Result<()> {
    match &app.config.endpoint {
        Some(known) if known != endpoint => {
            Err(Error::not_found(format!("Endpoint {endpoint} not found; this server answers to {known}")))
        }
        _ => Ok(()),
    }
}

/// The headers of every answer, good or bad.
pub(super) fn echoed(app: &App, headers: &HeaderMap) -> HeaderMap {
    let mut echoed = HeaderMap::new();
    let id = uuid::Uuid::new_v4().to_string();
    echoed.insert(REQUEST_ID, HeaderValue::try_from(id).expect("invariant: a UUID is ASCII"));
    let variant = headers.get(TARGET_VARIANT).cloned();
    let variant = variant.or_else(|| HeaderValue::try_from(&app.config.production_variant).ok());
    echoed.extend(variant.map(|variant| (INVOKED_VARIANT, variant)));
    echoed.extend(headers.get(CUSTOM_ATTRIBUTES).map(|attributes| (CUSTOM_ATTRIBUTES, attributes.clone())));
    echoed
}

/// A failure as the SDKs know it.
pub(super) fn refuse(failure: &Failure, status: &Status) -> Response {
    let (number, error_type) = status.runtime;
    let message = failure.message();
    // The platform's own number for what a container answered with an error.
    let model = (number == 424).then_some(ModelErrorBody {
        original_status_code: status.http,
        original_message: message,
        log_stream_arn: "",
    });
    let mut response = reply::json_with(number, &ErrorBody { message, model });
    response.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(error_type));
    response
}

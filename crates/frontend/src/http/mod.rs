//! The HTTP port: KServe v2, `/invocations`, and the SageMaker runtime API; and the metrics port.

mod describe;
mod health;
mod logging;
mod path;
mod repository;
mod shared_memory;
pub(crate) mod slashes;
mod statistics;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::{HeaderValue, header};
use inference::ModelKey;
use tower::ServiceExt;

pub(crate) use self::describe::{extensions, shown_state};
pub(crate) use self::logging::parse as parse_log_change;
use self::path::ModelPath;
pub(crate) use self::path::parse_version;
pub(crate) use self::shared_memory::{parse_cuda_region, parse_system_region};
use self::slashes::Names;
pub(crate) use self::statistics::{nanoseconds, place};
pub(crate) use self::trace::edit as parse_trace_edit;
use crate::codec::Announce;
use crate::infer::{self, Form, Invocation};
use crate::restriction::{Api, Guarded};
use crate::status::{Failure, Status};
use crate::telemetry::Surface;
use crate::{FrontendConfig, Services, Shared, generate, reply, sagemaker};

/// Where a model's name stands in a path, and its version.
const MODELS: &str = "/v2/models/";
const VERSION: &str = "/versions/{version}";

/// What can be asked of a model, and of one of its versions: each with what stands behind the name.
fn model_verbs() -> Vec<(&'static str, Api, MethodRouter<Shared>)> {
    vec![
        ("", Api::Metadata, get(describe::model)),
        ("/ready", Api::Health, get(health::model_ready)),
        ("/config", Api::ModelConfig, get(describe::config)),
        ("/stats", Api::Statistics, get(statistics::one)),
        ("/infer", Api::Inference, post(infer)),
        ("/generate", Api::Inference, post(generate)),
        ("/generate_stream", Api::Inference, post(generate_stream)),
        ("/trace/setting", Api::Trace, get(trace::of_model).post(trace::update_of_model)),
    ]
}

/// The routes of the HTTP port (8000).
pub fn http_router(services: Services, config: FrontendConfig) -> Router {
    let restrictions = config.http_restrictions.clone();
    let mut routes = Guarded::new(&restrictions)
        .route(Api::Metadata, "/v2", get(describe::server))
        .route(Api::Health, "/v2/health/live", get(health::live))
        .route(Api::Health, "/v2/health/ready", get(health::ready))
        .route(Api::Logging, "/v2/logging", logging::route())
        .route(Api::Statistics, "/v2/models/stats", get(statistics::all))
        .route(Api::Trace, "/v2/trace/setting", get(trace::of_all).post(trace::update_of_all))
        .route(Api::Inference, "/invocations", post(invocations));
    let mut models = Names { prefix: MODELS, tails: Vec::new() };
    for (verb, api, handlers) in model_verbs() {
        for tail in [verb.to_owned(), format!("{VERSION}{verb}")] {
            routes = routes.route(api, &format!("{MODELS}{{name}}{tail}"), handlers.clone());
            models.tails.push(tail);
        }
    }
    let (routes, controlled) = repository::routes(routes);
    let routes = shared_memory::routes(sagemaker::runtime_routes(routes));
    let router = crate::finish(routes.into_router(), services, config);
    let names = [models, controlled].into_iter().chain(shared_memory::names()).collect();
    let routes = router.clone();
    router.fallback(move |request| with_slashes(routes, names, request))
}

/// Takes a path that is no route for one whose model's name holds slashes.
async fn with_slashes(routes: Router, names: Arc<[Names]>, mut request: Request) -> Response {
    if let Some(escaped) = slashes::escaped(request.uri(), &names) {
        *request.uri_mut() = escaped;
    }
    // Never fails.
    routes.oneshot(request).await.unwrap_or_else(|error| match error {})
}

/// The routes of the metrics port (8002): `GET /metrics` answers with what `render` returns.
pub fn metrics_router(render: Arc<dyn Fn() -> String + Send + Sync>) -> Router {
    let metrics = get(async move || {
        let mut response = Response::new(Body::from(render()));
        let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    });
    Router::new()
        .route("/metrics", metrics)
        .fallback(reply::unknown_route)
        .method_not_allowed_fallback(reply::unknown_method)
        .layer(reply::catch_panics())
}

/// `POST /v2/models/{name}[/versions/{version}]/infer`.
async fn infer(State(app): State<Shared>, path: ModelPath, request: Request) -> Response {
    infer::answer(&app, of_model(path, request, Form::Tensors(Announce::Header)), refuse).await
}

/// `POST /v2/models/{name}[/versions/{version}]/generate`.
async fn generate(State(app): State<Shared>, path: ModelPath, request: Request) -> Response {
    infer::answer(&app, of_model(path, request, Form::Generate), refuse).await
}

/// `POST /v2/models/{name}[/versions/{version}]/generate_stream`.
async fn generate_stream(State(app): State<Shared>, path: ModelPath, request: Request) -> Response {
    generate::stream(app, of_model(path, request, Form::Generate), refuse).await
}

fn of_model(path: ModelPath, request: Request, form: Form) -> Invocation {
    let (head, body) = request.into_parts();
    let key = infer::target(&head.headers).map(|target| ModelKey { target, ..path.key });
    Invocation { surface: Surface::V2, key, headers: head.headers, body, form, time_limit: None }
}

/// `POST /invocations` on the HTTP port.
async fn invocations(State(app): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let invocation = Invocation {
        surface: Surface::Invocations,
        key: infer::target_or_only(&head.headers),
        headers: head.headers,
        body,
        form: Form::Tensors(Announce::ContentType),
        time_limit: None,
    };
    infer::answer(&app, invocation, refuse).await
}

/// A failure as Triton's clients know it.
fn refuse(failure: &Failure, status: &Status) -> Response {
    reply::error(status.http, failure.message())
}

//! The HTTP port: KServe v2, `/invocations`, and the SageMaker runtime API; and the metrics port.

mod describe;
mod health;
mod path;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderValue, header};
use inference::ModelKey;

pub(crate) use self::describe::{EXTENSIONS, shown_state};
use self::path::ModelPath;
pub(crate) use self::path::parse_version;
use crate::codec::Announce;
use crate::infer::{self, Invocation};
use crate::status::{Failure, Status};
use crate::telemetry::Surface;
use crate::{FrontendConfig, Services, Shared, reply, sagemaker};

/// The routes of the HTTP port (8000).
pub fn http_router(services: Services, config: FrontendConfig) -> Router {
    let mut router = Router::new()
        .route("/v2", get(describe::server))
        .route("/v2/health/live", get(health::live))
        .route("/v2/health/ready", get(health::ready))
        .route("/v2/repository/index", post(describe::index));
    for model in ["/v2/models/{name}", "/v2/models/{name}/versions/{version}"] {
        router = router
            .route(model, get(describe::model))
            .route(&format!("{model}/ready"), get(health::model_ready))
            .route(&format!("{model}/config"), get(describe::config))
            .route(&format!("{model}/infer"), post(infer));
    }
    let router = router.route("/invocations", post(invocations)).merge(sagemaker::runtime_routes());
    crate::finish(router, services, config)
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
    let (head, body) = request.into_parts();
    let key = infer::target(&head.headers).map(|target| ModelKey { target, ..path.key });
    let invocation = Invocation {
        surface: Surface::V2,
        key,
        headers: head.headers,
        body,
        announce: Announce::Header,
        time_limit: None,
    };
    infer::answer(&app, invocation, refuse).await
}

/// `POST /invocations` on the HTTP port.
async fn invocations(State(app): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let invocation = Invocation {
        surface: Surface::Invocations,
        key: infer::target_or_only(&head.headers),
        headers: head.headers,
        body,
        announce: Announce::ContentType,
        time_limit: None,
    };
    infer::answer(&app, invocation, refuse).await
}

/// A failure as Triton's clients know it.
fn refuse(failure: &Failure, status: &Status) -> Response {
    reply::error(status.http, failure.message())
}

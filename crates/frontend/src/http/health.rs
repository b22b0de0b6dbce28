//! Health and readiness, which never start or wait for anything.

use axum::extract::State;
use axum::response::Response;

use super::path::TargetedPath;
use crate::{Shared, infer, reply};

/// `GET /v2/health/live`.
pub(super) async fn live() -> Response {
    reply::empty(200)
}

/// `GET /v2/health/ready`.
pub(super) async fn ready(State(app): State<Shared>) -> Response {
    reply::empty(if app.services.control.is_server_ready() { 200 } else { 400 })
}

/// `GET /v2/models/{name}[/versions/{version}]/ready`.
pub(super) async fn model_ready(State(app): State<Shared>, path: TargetedPath) -> Response {
    let answer = match app.services.control.is_model_ready(&path.key) {
        true => reply::empty(200),
        false => reply::error(400, "Model version not ready"),
    };
    infer::with_version(&app, &path.key, answer)
}

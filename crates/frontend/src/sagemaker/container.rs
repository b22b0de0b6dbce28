//! The SageMaker container contract: what the platform asks of a multi-model container.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use inference::{Error, ErrorKind, ModelKey, Result};

use super::register::{self, Entry};
use super::{Segment, segment};
use crate::body;
use crate::codec::Announce;
use crate::infer::{self, Form, Invocation};
use crate::status::{self, Failure, Status};
use crate::telemetry::Surface;
use crate::{App, FrontendConfig, Services, Shared, reply};

/// Bytes that the body of `POST /models` may have.
const MAX_REGISTRATION: u64 = 64 << 10;

/// The routes of the SageMaker port (8080).
pub fn sagemaker_router(services: Services, config: FrontendConfig) -> Router {
    let router = Router::new()
        .route("/ping", get(ping))
        .route("/invocations", post(invocations))
        .route("/models", get(list).post(load))
        .route("/models/{name}", get(describe).delete(unload))
        .route("/models/{name}/invoke", post(invoke));
    crate::finish(router, services, config)
}

/// `GET /ping`: not before start-up is over, so that no traffic comes earlier.
async fn ping(State(app): State<Shared>) -> Response {
    let ready = app.services.control.is_server_ready();
    reply::empty(if ready {
        200
    } else {
        status::of(ErrorKind::Unavailable, inference::Origin::Server, false).container
    })
}

/// `POST /invocations`.
async fn invocations(State(app): State<Shared>, request: Request) -> Response {
    let key = infer::target_or_only(request.headers());
    run(&app, key, request).await
}

/// `POST /models/{name}/invoke`. The header that names an archive may come along, and says nothing more.
async fn invoke(State(app): State<Shared>, name: Segment, request: Request) -> Response {
    let key = segment(name).and_then(|name| match app.services.control.is_registered(&name) {
        true => Ok(ModelKey::of_model(name)),
        false => Err(not_registered(&name)),
    });
    run(&app, key, request).await
}

async fn run(app: &App, key: Result<ModelKey>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let invocation = Invocation {
        surface: Surface::Container,
        key,
        headers: head.headers,
        body,
        form: Form::Tensors(Announce::ContentType),
        time_limit: None,
    };
    infer::answer(app, invocation, |failure, status| refuse(failure, status.container)).await
}

/// `GET /models`.
async fn list(State(app): State<Shared>, request: Request) -> Response {
    match register::page(&app.services.control.registered(), request.uri().query().unwrap_or_default()) {
        Ok(page) => reply::json(&page),
        Err(error) => failed(&error.into(), |status| status.container),
    }
}

/// `GET /models/{name}`.
async fn describe(State(app): State<Shared>, name: Segment) -> Response {
    let entry = segment(name).and_then(|name| {
        let registered = app.services.control.registered();
        let model = registered.iter().find(|model| model.name == name);
        model.map(Entry::from).ok_or_else(|| not_registered(&name))
    });
    match entry {
        Ok(entry) => reply::json(&entry),
        Err(error) => failed(&error.into(), |status| status.container),
    }
}

/// `POST /models`.
async fn load(State(app): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = match body::read(&head.headers, body, app.bounds(MAX_REGISTRATION), None).await {
        Ok(whole) => whole.bytes,
        Err(failure) => return failed(&failure, |status| status.container),
    };
    let registration = match register::parse(&body, &app.config.registered_roots) {
        Ok(registration) => registration,
        Err(error) => return failed(&error.into(), |status| status.container),
    };
    match app.services.control.register(&registration.name, &registration.directory).await {
        Ok(()) => reply::empty(200),
        Err(error) => failed(&error.into(), |status| status.register),
    }
}

/// `DELETE /models/{name}`: answers when the memory is free.
async fn unload(State(app): State<Shared>, name: Segment) -> Response {
    let unloaded = match segment(name) {
        Ok(name) => app.services.control.unregister(&name).await,
        Err(error) => Err(error),
    };
    match unloaded {
        Ok(()) => reply::empty(200),
        Err(error) => failed(&error.into(), |status| status.container),
    }
}

fn not_registered(name: &str) -> Error {
    Error::not_found(format!("model '{name}' is not loaded; load it with POST /models"))
}

fn failed(failure: &Failure, number: impl FnOnce(&Status) -> u16) -> Response {
    let status = failure.status(false);
    infer::log(&ModelKey::default(), failure, &status);
    reply::decorate(refuse(failure, number(&status)), &status, failure)
}

fn refuse(failure: &Failure, number: u16) -> Response {
    reply::error(number, failure.message())
}

//! Loading and unloading models by name: `POST /v2/repository/models/{name}/load` and `/unload`.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use http::{HeaderValue, header};
use inference::{ModelKey, Result};

use super::describe;
use super::path::ModelPath;
use super::slashes::Names;
use crate::admission::BodyShare;
use crate::body::{self, Whole};
use crate::infer::{LONG_JSON, off_thread};
use crate::load_parameters::in_repository;
use crate::restriction::{Api, Guarded};
use crate::status::Failure;
use crate::{App, Shared, codec, reply};

/// Where a model's name stands in a path.
const MODELS: &str = "/v2/repository/models/";

/// Adds the routes; returns those whose names may hold slashes.
pub(super) fn routes(mut routes: Guarded<'_>) -> (Guarded<'_>, Names) {
    let group = Api::ModelRepository;
    routes = routes.route(group, "/v2/repository/index", post(describe::index));
    routes = routes.route(group, "/v2/repository/{repository}/index", post(in_one_repository));
    let calls = [("/load", post(load)), ("/unload", post(unload))];
    let mut names = Names { prefix: MODELS, tails: Vec::new() };
    for (tail, handler) in calls {
        let in_one = format!("/v2/repository/{{repository}}/models/{{name}}{tail}");
        routes = routes.route(group, &format!("{MODELS}{{name}}{tail}"), handler);
        routes = routes.route(group, &in_one, post(in_one_repository));
        names.tails.push(tail.to_owned());
    }
    (routes, names)
}

/// `POST /v2/repository/models/{name}/load`.
async fn load(State(app): State<Shared>, path: ModelPath, request: Request) -> Response {
    answer(&path.key, load_model(&app, &path.key, request).await)
}

/// `POST /v2/repository/models/{name}/unload`.
async fn unload(State(app): State<Shared>, path: ModelPath, request: Request) -> Response {
    answer(&path.key, unload_model(&app, &path.key, request).await)
}

/// Any of these, or the index, in one of several repositories.
async fn in_one_repository() -> Response {
    answer(&ModelKey::default(), Err(in_repository().into()))
}

fn answer(key: &ModelKey, outcome: Result<(), Failure>) -> Response {
    match outcome {
        Ok(()) => {
            let mut done = reply::empty(200);
            done.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            done
        }
        Err(failure) => describe::refuse(key, failure),
    }
}

async fn load_model(app: &App, key: &ModelKey, request: Request) -> Result<(), Failure> {
    let (overrides, _share) = read(app, request, codec::parse_load).await?;
    Ok(app.services.control.load(key, overrides).await?)
}

async fn unload_model(app: &App, key: &ModelKey, request: Request) -> Result<(), Failure> {
    let parse = |body: &[u8], max_depth, _: &mut _| codec::parse_unload(body, max_depth);
    let (with_dependents, _share) = read(app, request, parse).await?;
    Ok(app.services.control.unload(key, with_dependents).await?)
}

/// Reads a body by `parse`, which is given the depth that it may have, and its share to count in what it takes beside it.
async fn read<T: Send + 'static>(
    app: &App,
    request: Request,
    parse: impl FnOnce(&[u8], usize, &mut BodyShare) -> Result<T> + Send + 'static,
) -> Result<(T, BodyShare), Failure> {
    let (head, body) = request.into_parts();
    let bounds = app.bounds(app.config.max_request_size);
    let Whole { bytes, mut share } = body::read(&head.headers, body, bounds, None).await?;
    let (is_long, max_depth) = (bytes.len() > LONG_JSON, app.max_json_depth());
    let job = move || parse(&bytes, max_depth, &mut share).map(|parsed| (parsed, share));
    Ok(if is_long { off_thread(job).await } else { job() }?)
}

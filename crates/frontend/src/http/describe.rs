//! What the server and its models are: server metadata, model metadata, model configuration, repository index.

use axum::extract::{Request, State};
use axum::response::Response;
use inference::{CacheOutcome, DataType, Error, IndexEntry, ModelInfo, ModelKey, ModelState, Result, Shape};
use serde::{Deserialize, Serialize};

use super::path::TargetedPath;
use crate::body;
use crate::status::Failure;
use crate::{App, Shared, infer, reply};

/// The extensions of KServe v2 that are there, by Triton's names for them.
const EXTENSIONS: [&str; 11] = [
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
];
/// Bytes that the body of an index request may have.
const MAX_INDEX_REQUEST: u64 = 64 << 10;

#[derive(Serialize)]
struct ServerMetadata<'a> {
    name: &'a str,
    version: &'a str,
    extensions: Vec<&'static str>,
}

#[derive(Serialize)]
struct ModelMetadata<'a> {
    name: String,
    versions: Vec<String>,
    platform: &'a str,
    inputs: Vec<TensorMetadata<'a>>,
    outputs: Vec<TensorMetadata<'a>>,
}

#[derive(Serialize)]
struct TensorMetadata<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<i64>,
}

#[derive(Serialize)]
struct IndexLine<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    /// Not Triton's: where it is, if that is on GPUs.
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    gpus: &'a [u32],
}

#[derive(Deserialize, Default)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

/// `GET /v2`.
pub(super) async fn server(State(app): State<Shared>) -> Response {
    let (name, version) = (&app.config.server_name, &app.config.server_version);
    reply::json(&ServerMetadata { name, version, extensions: extensions(&app) })
}

/// The extensions that this server has, some of which its settings decide.
pub(crate) fn extensions(app: &App) -> Vec<&'static str> {
    let mut extensions = EXTENSIONS.to_vec();
    if app.services.shared_memory.is_allowed() {
        extensions.push("system_shared_memory");
    }
    if app.services.shared_memory.takes_cuda() {
        extensions.push("cuda_shared_memory");
    }
    extensions
}

/// `GET /v2/models/{name}[/versions/{version}]`.
pub(super) async fn model(State(app): State<Shared>, path: TargetedPath) -> Response {
    match app.services.control.describe(&path.key, path.deadline, None).await {
        Ok(found) => told(reply::json(&metadata(&path.key, &found.model)), found.cache.as_ref()),
        Err(error) => refuse(&path.key, error.into()),
    }
}

fn metadata<'a>(key: &ModelKey, info: &'a ModelInfo) -> ModelMetadata<'a> {
    let spec = &info.spec;
    let tensor = |name: &'a str, datatype: DataType, dims: &Shape| TensorMetadata {
        name,
        datatype: datatype.name(),
        shape: spec.full_shape(dims).to_vec(),
    };
    let versions = if key.version.is_some() { std::slice::from_ref(&info.version) } else { &info.versions[..] };
    ModelMetadata {
        name: key.to_string(),
        versions: versions.iter().map(u64::to_string).collect(),
        platform: &spec.platform,
        inputs: spec.inputs.iter().map(|input| tensor(&input.name, input.datatype, &input.dims)).collect(),
        outputs: spec.outputs.iter().map(|output| tensor(&output.name, output.datatype, &output.dims)).collect(),
    }
}

/// `GET /v2/models/{name}[/versions/{version}]/config`.
pub(super) async fn config(State(app): State<Shared>, path: TargetedPath) -> Response {
    let described = app.services.control.describe(&path.key, path.deadline, None).await;
    let text = described.and_then(|found| Ok((config_json(&found.model)?, found.cache)));
    match text {
        Ok((text, cache)) => told(reply::json_text(200, text), cache.as_ref()),
        Err(error) => refuse(&path.key, error.into()),
    }
}

/// An answer that also says how the model was found.
fn told(mut response: Response, cache: Option<&CacheOutcome>) -> Response {
    infer::cache_headers(response.headers_mut(), cache);
    response
}

fn config_json(info: &ModelInfo) -> Result<String> {
    let config = protocol::decode_model_config(&info.config).map_err(|error| {
        Error::internal(format!("the configuration of model '{}' cannot be read back", info.spec.name))
            .with_source(error)
    })?;
    Ok(protocol::model_config_json(&config))
}

/// `POST /v2/repository/index`.
pub(super) async fn index(State(app): State<Shared>, request: Request) -> Response {
    match index_request(&app, request).await {
        Ok(request) => reply::json(&lines(&app.services.control.index().await, request.ready)),
        Err(failure) => refuse(&ModelKey::default(), failure),
    }
}

async fn index_request(app: &App, request: Request) -> Result<IndexRequest, Failure> {
    let (head, body) = request.into_parts();
    let body = body::read(&head.headers, body, app.bounds(MAX_INDEX_REQUEST), None).await?.bytes;
    if body.trim_ascii().is_empty() {
        return Ok(IndexRequest::default());
    }
    let parsed = serde_json::from_slice(&body);
    parsed.map_err(|error| {
        Error::invalid_argument(format!("the index request's body is not like {{\"ready\":true}}: {error}")).into()
    })
}

fn lines(entries: &[IndexEntry], only_ready: bool) -> Vec<IndexLine<'_>> {
    let wanted = entries.iter().filter(|entry| !only_ready || entry.state == ModelState::Ready);
    wanted
        .map(|entry| IndexLine {
            name: &entry.name,
            version: entry.version.map(|version| version.to_string()),
            state: shown_state(entry),
            reason: &entry.reason,
            gpus: &entry.gpus,
        })
        .collect()
}

/// The state in the index; as Triton, a model that was never asked for is told by its name alone.
pub(crate) fn shown_state(entry: &IndexEntry) -> Option<&'static str> {
    let never_loaded = entry.state == ModelState::Unavailable && entry.version.is_none() && entry.reason.is_empty();
    (!never_loaded).then(|| entry.state.name())
}

pub(super) fn refuse(key: &ModelKey, failure: Failure) -> Response {
    let status = failure.status(false);
    infer::log(key, &failure, &status);
    reply::decorate(reply::error(status.http, failure.message()), &status, &failure)
}

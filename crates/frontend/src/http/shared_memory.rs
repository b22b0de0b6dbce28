//! `/v2/systemsharedmemory/…` and `/v2/cudasharedmemory/…` of Triton's shared memory extensions.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use inference::{DeviceMemoryHandle, Error, ModelKey, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::describe::refuse;
use super::path::RegionName;
use super::slashes::Names;
use crate::restriction::{Api, Guarded};
use crate::shared_memory::{CudaRegion, SystemRegion};
use crate::status::Failure;
use crate::{Shared, body, reply};

/// Bytes that the body of a registration may have.
const MAX_REGISTRATION: u64 = 64 << 10;

/// A part of an object that a client registers.
#[derive(Deserialize)]
pub(crate) struct SystemRegistration {
    key: String,
    #[serde(default)]
    offset: u64,
    byte_size: u64,
}

/// Memory of a GPU that a client registers.
#[derive(Deserialize)]
struct CudaRegistration {
    raw_handle: Option<RawHandle>,
    device_id: u32,
    byte_size: u64,
}

#[derive(Deserialize)]
struct RawHandle {
    b64: String,
}

#[derive(Serialize)]
struct SystemStatus {
    name: String,
    key: String,
    offset: u64,
    byte_size: u64,
}

#[derive(Serialize)]
struct CudaStatus {
    name: String,
    device_id: u32,
    byte_size: u64,
}

/// Adds the routes of both kinds of memory.
pub(super) fn routes(mut routes: Guarded<'_>) -> Guarded<'_> {
    let of_system = [
        ("/status", get(system_status_all)),
        ("/region/{name}/status", get(system_status)),
        ("/region/{name}/register", post(system_register)),
        ("/unregister", post(system_unregister_all)),
        ("/region/{name}/unregister", post(system_unregister)),
    ];
    let of_cuda = [
        ("/status", get(cuda_status_all)),
        ("/region/{name}/status", get(cuda_status)),
        ("/region/{name}/register", post(cuda_register)),
        ("/unregister", post(cuda_unregister_all)),
        ("/region/{name}/unregister", post(cuda_unregister)),
    ];
    for (prefix, calls) in [("/v2/systemsharedmemory", of_system), ("/v2/cudasharedmemory", of_cuda)] {
        for (tail, handlers) in calls {
            routes = routes.route(Api::SharedMemory, &format!("{prefix}{tail}"), handlers);
        }
    }
    routes
}

/// Where the names of regions stand in paths.
pub(super) fn names() -> [Names; 2] {
    ["/v2/systemsharedmemory/region/", "/v2/cudasharedmemory/region/"].map(|prefix| {
        let tails = ["/status", "/register", "/unregister"].map(str::to_owned).to_vec();
        Names { prefix, tails }
    })
}

async fn system_status_all(State(app): State<Shared>) -> Response {
    statuses(app.services.shared_memory.system_status(""), system_told)
}

async fn system_status(State(app): State<Shared>, RegionName(name): RegionName) -> Response {
    statuses(app.services.shared_memory.system_status(&name), system_told)
}

async fn system_register(State(app): State<Shared>, RegionName(name): RegionName, request: Request) -> Response {
    let registered = async {
        let SystemRegistration { key, offset, byte_size } = parse_system_region(&registration(&app, request).await?)?;
        Ok(app.services.shared_memory.system_register(&name, &key, offset, byte_size)?)
    };
    done(registered.await)
}

/// The body of a registration.
async fn registration(app: &Shared, request: Request) -> Result<Bytes, Failure> {
    app.services.shared_memory.check_allowed()?;
    let (head, body) = request.into_parts();
    Ok(body::read(&head.headers, body, app.bounds(MAX_REGISTRATION), None).await?.bytes)
}

/// Reads the body of a registration of system memory.
///
/// # Errors
/// InvalidArgument.
pub(crate) fn parse_system_region(body: &[u8]) -> Result<SystemRegistration> {
    parse(body, r#"{"key":"/name","offset":0,"byte_size":64}"#)
}

/// Reads the body of a registration of a GPU's memory: the handle, the GPU, the size. Messages are Triton's.
///
/// # Errors
/// InvalidArgument.
pub(crate) fn parse_cuda_region(body: &[u8]) -> Result<(DeviceMemoryHandle, u32, u64)> {
    let told: CudaRegistration = parse(body, r#"{"raw_handle":{"b64":"…"},"device_id":0,"byte_size":64}"#)?;
    let raw = told.raw_handle;
    let raw = raw.ok_or_else(|| Error::invalid_argument("Shared memory register request has no 'raw_handle' field"))?;
    // Some clients break the lines of what they encode.
    let encoded: String = raw.b64.split_ascii_whitespace().collect();
    let wrong = |why: &dyn std::fmt::Display| {
        Error::invalid_argument(format!("'raw_handle' must be a valid base64 encoded cudaIpcMemHandle_t: {why}"))
    };
    let decoded = BASE64.decode(encoded).map_err(|error| wrong(&error))?;
    let handle = DeviceMemoryHandle::try_from(&decoded[..]).map_err(|error| wrong(&error))?;
    Ok((handle, told.device_id, told.byte_size))
}

fn parse<T: DeserializeOwned>(body: &[u8], like: &str) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|error| Error::invalid_argument(format!("the registration's body is not like {like}: {error}")))
}

async fn system_unregister_all(State(app): State<Shared>) -> Response {
    done(app.services.shared_memory.system_unregister("").map_err(Failure::from))
}

async fn system_unregister(State(app): State<Shared>, RegionName(name): RegionName) -> Response {
    done(app.services.shared_memory.system_unregister(&name).map_err(Failure::from))
}

async fn cuda_status_all(State(app): State<Shared>) -> Response {
    statuses(app.services.shared_memory.cuda_status(""), cuda_told)
}

async fn cuda_status(State(app): State<Shared>, RegionName(name): RegionName) -> Response {
    statuses(app.services.shared_memory.cuda_status(&name), cuda_told)
}

async fn cuda_register(State(app): State<Shared>, RegionName(name): RegionName, request: Request) -> Response {
    let registered = async {
        let memory = &app.services.shared_memory;
        memory.check_cuda(&name)?;
        let (handle, device_id, byte_size) = parse_cuda_region(&registration(&app, request).await?)?;
        Ok(memory.cuda_register(name, handle, device_id.into(), byte_size).await?)
    };
    done(registered.await)
}

async fn cuda_unregister_all(State(app): State<Shared>) -> Response {
    done(app.services.shared_memory.cuda_unregister("").await.map_err(Failure::from))
}

async fn cuda_unregister(State(app): State<Shared>, RegionName(name): RegionName) -> Response {
    done(app.services.shared_memory.cuda_unregister(&name).await.map_err(Failure::from))
}

fn system_told(region: SystemRegion) -> SystemStatus {
    let SystemRegion { name, key, offset, byte_size } = region;
    SystemStatus { name, key, offset, byte_size }
}

fn cuda_told(region: CudaRegion) -> CudaStatus {
    let CudaRegion { name, device_id, byte_size } = region;
    CudaStatus { name, device_id, byte_size }
}

fn statuses<R, T: Serialize>(regions: Result<Vec<R>>, told: impl Fn(R) -> T) -> Response {
    match regions {
        Ok(regions) => reply::json(&regions.into_iter().map(told).collect::<Vec<_>>()),
        Err(error) => refuse(&ModelKey::default(), error.into()),
    }
}

fn done(outcome: Result<(), Failure>) -> Response {
    outcome.map_or_else(|failure| refuse(&ModelKey::default(), failure), |()| reply::empty(200))
}

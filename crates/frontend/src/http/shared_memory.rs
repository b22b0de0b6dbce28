//! `/v2/systemsharedmemory/…` and `/v2/cudasharedmemory/…` of Triton's shared memory extensions.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use inference::{Error, ModelKey, Result};
use serde::{Deserialize, Serialize};

use super::describe::refuse;
use super::path::RegionName;
use super::slashes::Names;
use crate::restriction::{Api, Guarded};
use crate::shared_memory::Region;
use crate::status::Failure;
use crate::{Shared, body, reply};

/// Bytes that the body of a registration may have.
const MAX_REGISTRATION: u64 = 64 << 10;

/// What a client registers.
#[derive(Deserialize)]
pub(crate) struct Registration {
    key: String,
    #[serde(default)]
    offset: u64,
    byte_size: u64,
}

#[derive(Serialize)]
struct RegionStatus {
    name: String,
    key: String,
    offset: u64,
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
        ("/unregister", post(cuda_unregister)),
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
    statuses(app.services.shared_memory.status(""))
}

async fn system_status(State(app): State<Shared>, RegionName(name): RegionName) -> Response {
    statuses(app.services.shared_memory.status(&name))
}

async fn system_register(State(app): State<Shared>, RegionName(name): RegionName, request: Request) -> Response {
    let registered = match registration(&app, request).await {
        Ok(Registration { key, offset, byte_size }) => {
            app.services.shared_memory.register(&name, &key, offset, byte_size).map_err(Failure::from)
        }
        Err(failure) => Err(failure),
    };
    done(registered)
}

async fn registration(app: &Shared, request: Request) -> Result<Registration, Failure> {
    app.services.shared_memory.check_allowed()?;
    let (head, body) = request.into_parts();
    let body = body::read(&head.headers, body, app.bounds(MAX_REGISTRATION), None).await?.bytes;
    Ok(parse(&body)?)
}

/// Reads the body of a registration.
///
/// # Errors
/// InvalidArgument.
pub(crate) fn parse(body: &[u8]) -> Result<Registration> {
    serde_json::from_slice(body).map_err(|error| {
        let expected = r#"{"key":"/name","offset":0,"byte_size":64}"#;
        Error::invalid_argument(format!("the registration's body is not like {expected}: {error}"))
    })
}

async fn system_unregister_all(State(app): State<Shared>) -> Response {
    done(app.services.shared_memory.unregister("").map_err(Failure::from))
}

async fn system_unregister(State(app): State<Shared>, RegionName(name): RegionName) -> Response {
    done(app.services.shared_memory.unregister(&name).map_err(Failure::from))
}

async fn cuda_status_all(State(app): State<Shared>) -> Response {
    statuses(app.services.shared_memory.cuda_status(""))
}

async fn cuda_status(State(app): State<Shared>, RegionName(name): RegionName) -> Response {
    statuses(app.services.shared_memory.cuda_status(&name))
}

async fn cuda_register(State(app): State<Shared>, RegionName(name): RegionName) -> Response {
    done(app.services.shared_memory.cuda_register(&name).map_err(Failure::from))
}

async fn cuda_unregister(State(app): State<Shared>) -> Response {
    done(app.services.shared_memory.check_allowed().map_err(Failure::from))
}

fn statuses(regions: Result<Vec<Region>>) -> Response {
    let status = |region: Region| {
        let Region { name, key, offset, byte_size, .. } = region;
        RegionStatus { name, key, offset, byte_size }
    };
    match regions {
        Ok(regions) => reply::json(&regions.into_iter().map(status).collect::<Vec<_>>()),
        Err(error) => refuse(&ModelKey::default(), error.into()),
    }
}

fn done(outcome: Result<(), Failure>) -> Response {
    outcome.map_or_else(|failure| refuse(&ModelKey::default(), failure), |()| reply::empty(200))
}

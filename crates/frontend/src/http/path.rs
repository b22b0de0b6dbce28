//! The model that a path of KServe v2 names.

use std::collections::HashMap;
use std::time::Instant;

use axum::extract::{FromRequestParts, Path};
use axum::response::Response;
use http::request::Parts;
use inference::{Error, ModelKey, Result};

use crate::{infer, reply, status, time_limit};

/// `/v2/models/{name}[/versions/{version}]`; an escaped `/` in the name is part of it. Those that are not escaped were by
/// [`super::slashes`].
pub(super) struct ModelPath {
    pub(super) key: ModelKey,
}

impl<S: Send + Sync> FromRequestParts<S> for ModelPath {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let segments: Result<Path<HashMap<String, String>>, _> = Path::from_request_parts(parts, state).await;
        let key = segments.map_err(|_| not_utf_8("model")).and_then(|Path(segments)| key(&segments));
        key.map(|key| ModelPath { key }).map_err(|error| refuse(&error))
    }
}

/// As [`ModelPath`], within the archive that the head names, if it names one, and for as long as the head says.
pub(super) struct TargetedPath {
    pub(super) key: ModelKey,
    /// When the client stops waiting.
    pub(super) deadline: Option<Instant>,
}

impl<S: Send + Sync> FromRequestParts<S> for TargetedPath {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let ModelPath { key } = ModelPath::from_request_parts(parts, state).await?;
        let deadline = time_limit::deadline(&parts.headers, None, Instant::now()).map_err(|error| refuse(&error))?;
        match infer::target(&parts.headers) {
            Ok(target) => Ok(TargetedPath { key: ModelKey { target, ..key }, deadline }),
            Err(error) => Err(refuse(&error)),
        }
    }
}

/// The name of a region of shared memory.
pub(super) struct RegionName(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for RegionName {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let name: Result<Path<String>, _> = Path::from_request_parts(parts, state).await;
        name.map(|Path(name)| RegionName(name)).map_err(|_| refuse(&not_utf_8("region")))
    }
}

fn not_utf_8(what: &str) -> Error {
    Error::invalid_argument(format!("the {what}'s name in the path is not UTF-8 once its escapes are read"))
}

fn refuse(error: &Error) -> Response {
    reply::error(status::of_error(error, false).http, error.message())
}

fn key(segments: &HashMap<String, String>) -> Result<ModelKey> {
    let name = segments.get("name").map(String::as_str).unwrap_or_default();
    let version = segments.get("version").map(|version| parse_version(version)).transpose()?;
    Ok(ModelKey { version, ..ModelKey::of_model(name) })
}

/// A version, from its text.
pub(crate) fn parse_version(text: &str) -> Result<u64> {
    text.parse().ok().filter(|version| *version > 0).ok_or_else(|| {
        Error::invalid_argument(format!(
            "failed to get model version from specified version string '{text}' (details: expected an integer above 0)"
        ))
    })
}

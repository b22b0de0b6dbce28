//! The model store: where archives come from. One trait, and what every implementation reports about an object.

mod checksum;
mod folder;
mod s3;
mod s3_error;

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use inference::{BoxFuture, ErrorKind, Result, TargetModel};

pub use checksum::{Checksum, ChecksumAlgorithm, ChecksumHasher};
pub use folder::FolderStore;
pub use s3::{S3Config, S3Credentials, S3Store};

/// What the store knows about one archive without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Identifies this content of the archive: it changes whenever the archive is replaced.
    pub etag: Arc<str>,
    /// The archive's length in bytes.
    pub size: u64,
    /// A checksum of the whole archive, where the store keeps one.
    pub checksum: Option<Checksum>,
}

/// An archive being read.
pub struct ObjectBody {
    /// What the store says about the bytes that follow.
    pub info: ObjectInfo,
    /// The archive's bytes, in order. The stream ends after the last byte or with the first error; whoever reads it checks
    /// that as many bytes came as `info` promised.
    pub bytes: BoxStream<'static, Result<Bytes>>,
}

/// A place with model archives. Implementations bound every wait, and may be called from any number of tasks at once.
pub trait ModelStore: Send + Sync {
    /// Names the store in messages, and tells caches of different stores apart: `s3://bucket/prefix/` or `/models`.
    fn location(&self) -> &str;

    /// Asks what an archive looks like now.
    ///
    /// # Errors
    /// NotFound, naming the key and the place that was searched; Unavailable when the store cannot be reached or refuses.
    fn head<'a>(&'a self, target: &'a TargetModel) -> BoxFuture<'a, Result<ObjectInfo>>;

    /// Reads an archive whose ETag is still `etag`.
    ///
    /// # Errors
    /// As [`ModelStore::head`]; Unavailable also when the archive has been replaced since `etag` was learnt (ask
    /// [`ModelStore::head`] again, a bounded number of times).
    fn get<'a>(&'a self, target: &'a TargetModel, etag: &'a str) -> BoxFuture<'a, Result<ObjectBody>>;
}

/// The operations that are counted in `panoply_store_requests_total`.
#[derive(Clone, Copy)]
pub(crate) enum Operation {
    Head,
    Get,
}

/// Counts one request to a store by how it ended.
pub(crate) fn count_request<T>(operation: Operation, result: &Result<T>) {
    let operation = match operation {
        Operation::Head => "head",
        Operation::Get => "get",
    };
    let outcome = match result.as_ref().err().map(inference::Error::kind) {
        None => "success",
        Some(ErrorKind::NotFound) => "not_found",
        Some(_) => "failure",
    };
    metrics::counter!("panoply_store_requests_total", "operation" => operation, "outcome" => outcome).increment(1);
}

/// The error for an archive that was replaced between two requests.
pub(crate) fn replaced(target: &TargetModel, location: &str) -> inference::Error {
    inference::Error::unavailable(format!("'{target}' was replaced in {location} while it was being read; try again"))
        .with_model(target.as_str())
}

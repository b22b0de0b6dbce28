//! The model store: where archives come from. One trait, and what every implementation reports about an object.

mod checksum;
mod folder;
mod listing;
pub(crate) mod resume;
pub(crate) mod retrier;
pub(crate) mod retry;
mod s3;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use inference::{BoxFuture, Error, ErrorKind, Result, TargetModel};

pub use checksum::{Checksum, ChecksumAlgorithm, ChecksumHasher};
pub use folder::FolderStore;
pub use listing::{ListedArchive, Listing, ListingPage};
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

/// Some or all of an archive's bytes, in order: as many as were asked for, or an error at the end.
pub type ObjectBytes = BoxStream<'static, Result<Bytes>>;

/// What Amazon charges for a page of a listing, in questions about single archives.
pub const HEADS_PER_PAGE: usize = 12;

/// A place with model archives. Implementations bound every wait, try again what may have failed by chance, and may be called
/// from any number of tasks at once. Their errors are final.
pub trait ModelStore: Send + Sync {
    /// Names the store in messages, and tells caches of different stores apart: `s3://bucket/prefix/` or `/models`.
    fn location(&self) -> &str;

    /// The error for an archive that is not there, as [`ModelStore::head`] gives it.
    fn missing(&self, target: &TargetModel) -> Error;

    /// Asks what an archive looks like now.
    ///
    /// # Errors
    /// NotFound, naming the key and the place that was searched; Unavailable when the store cannot be reached or refuses.
    fn head<'a>(&'a self, target: &'a TargetModel) -> BoxFuture<'a, Result<ObjectInfo>>;

    /// Whether an archive that [`ModelStore::head`] did not find is really not there: asked in a way that tells a missing archive
    /// from a place that is not the store, however much that costs.
    ///
    /// # Errors
    /// Unavailable when that cannot be said.
    fn is_missing<'a>(&'a self, target: &'a TargetModel) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            match self.head(target).await {
                Ok(_) => Ok(false),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
                Err(error) => Err(error),
            }
        })
    }

    /// Lists every archive; `None` where that is never cheaper than to ask about each. A page costs about as much as
    /// [`HEADS_PER_PAGE`] questions.
    fn list(&self) -> Option<Listing> {
        None
    }

    /// Reads a range of the bytes of an archive that is still what `info` says.
    ///
    /// # Errors
    /// As [`ModelStore::head`]; [`was_replaced`] when the archive is another one by now (ask [`ModelStore::head`] again, a
    /// bounded number of times). What fails after the first bytes, comes with the stream.
    fn get<'a>(
        &'a self,
        target: &'a TargetModel,
        info: &'a ObjectInfo,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<ObjectBytes>>;
}

/// The operations that are counted in `panoply_store_requests_total`.
#[derive(Clone, Copy)]
pub(crate) enum Operation {
    Head,
    Get,
    List,
}

impl Operation {
    /// The metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Operation::Head => "head",
            Operation::Get => "get",
            Operation::List => "list",
        }
    }
}

/// Counts one request to a store by how it ended.
pub(crate) fn count_request(operation: Operation, error: Option<&Error>) {
    let outcome = match error.map(Error::kind) {
        None => "success",
        Some(ErrorKind::NotFound) => "not_found",
        Some(_) => "failure",
    };
    metrics::counter!("panoply_store_requests_total", "operation" => operation.label(), "outcome" => outcome)
        .increment(1);
}

/// What is behind the error for an archive that was replaced between two requests.
#[derive(Clone, Copy, Debug)]
struct Replaced;

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its ETag is another one")
    }
}

impl std::error::Error for Replaced {}

/// The error for an archive that was replaced between two requests.
pub(crate) fn replaced(target: &TargetModel, location: &str) -> Error {
    Error::unavailable(format!("'{target}' was replaced in {location} while it was being read; try again"))
        .with_model(target.as_str())
        .with_source(Replaced)
}

/// Whether this says that an archive is not any more what its [`ObjectInfo`] says, so that asking for that anew may help.
pub fn was_replaced(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<Replaced>())
}

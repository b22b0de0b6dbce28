//! What a listing of a model store tells.

use std::sync::Arc;

use futures::stream::BoxStream;
use inference::{Result, TargetModel};

/// One archive in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedArchive {
    /// Its key.
    pub target: TargetModel,
    /// Its ETag, as [`crate::ObjectInfo`] has it.
    pub etag: Arc<str>,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingPage {
    /// What is on it; other parts have others.
    pub archives: Vec<ListedArchive>,
    /// There are no more.
    pub is_last: bool,
}

/// The pages of a listing, each asked for when it is wanted. The stream ends after the last page, or with the first error.
pub type Listing = BoxStream<'static, Result<ListingPage>>;

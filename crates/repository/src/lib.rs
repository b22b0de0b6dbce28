//! Where models come from: the model store (S3 or a folder), download and unpacking of archives, and the disk cache.
//!
//! An archive's bytes stream from a [`ModelStore`] through gunzip and untar into a staging directory; when every byte has
//! been checked and flushed, the directory is renamed into the [`DiskCache`]. A [`CachedArchive`] pins it there.

mod archive;
mod background;
mod disk_cache;
mod download;
mod failure;
#[doc(hidden)]
pub mod fuzzing;
mod given_files;
mod metric_names;
pub mod reading;
mod request_threads;
mod scan;
mod store;

pub use archive::UnpackLimits;
pub use background::{Activity, Background, Moment, Panicked, Working};
pub use disk_cache::{Backoff, CachedArchive, DiskCache, DiskCacheConfig, FetchTiming, Refusals, ResidentArchive};
pub use download::{DownloadConfig, Priority, Urgency};
pub use given_files::GivenFiles;
pub use metric_names::describe_metrics;
pub use reading::{
    Repository, RepositoryModel, read_archive, read_archive_as, read_folder, read_given_model, read_model,
};
pub use scan::{Fingerprint, FoundModel, scan_folder};
pub use store::{
    Checksum, ChecksumAlgorithm, ChecksumHasher, FolderStore, HEADS_PER_PAGE, ListedArchive, Listing, ListingPage,
    ModelStore, ObjectBytes, ObjectInfo, S3Config, S3Credentials, S3Store, was_replaced,
};

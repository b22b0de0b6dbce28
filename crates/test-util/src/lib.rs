//! What tests of several crates share: S3 servers, builders of good and hostile archives, and prepared artifacts.

pub mod archive;
mod artifacts;
pub mod s3;

pub use artifacts::artifacts;

//! What tests of several crates share: S3 servers, builders of good and hostile archives, GPUs without a GPU, and prepared
//! artifacts.

pub mod archive;
mod artifacts;
mod devices;
pub mod s3;

pub use artifacts::artifacts;
pub use devices::FakeDevices;

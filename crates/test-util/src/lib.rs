//! What tests of several crates share: S3 servers, builders of good and hostile archives, GPUs without a GPU, chance that
//! repeats itself, a recorder of spans, and prepared artifacts.

pub mod archive;
mod artifacts;
mod devices;
pub mod dice;
pub mod s3;
mod spans;

pub use artifacts::artifacts;
pub use devices::FakeDevices;
pub use spans::KeptSpans;

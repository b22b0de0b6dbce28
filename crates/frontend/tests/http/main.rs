//! The HTTP surfaces over real sockets, with models that the tests control.

mod binary;
mod bounds;
mod cuda;
mod encoding;
mod fake;
mod generate;
mod guarded;
mod repository;
mod sagemaker;
mod serving;
mod statistics;
mod tracing;
mod v2;

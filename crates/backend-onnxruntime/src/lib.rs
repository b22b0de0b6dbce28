//! The `onnxruntime` backend: runs ONNX models through a dynamically loaded ONNX Runtime.
//!
//! One environment and one thread pool serve the whole process, whatever the number of models. The instances of a model
//! on the host share one session (its `Run` is thread-safe there), so `instance_group.count` bounds concurrency and costs
//! no memory; each instance on a GPU has a session of its own. All sessions share one memory arena on the host. A batch of several requests is run request by request.
//!
//! Unsafe code is confined to `arena.rs`, `value.rs`, `run.rs`, `port.rs`, `mapping.rs` and `memory.rs`.

mod arena;
mod backend;
mod complete;
mod config;
mod datatype;
mod environment;
mod host;
mod instance;
mod mapping;
mod memory;
mod metrics;
mod port;
mod promotion;
mod providers;
mod run;
mod served;
mod session;
mod signature;
mod skeleton;
mod value;
mod verify;
mod wire;

pub use backend::OnnxRuntimeBackend;
pub use config::OnnxRuntimeConfig;
pub use metrics::describe_metrics;

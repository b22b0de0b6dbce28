//! End-to-end tests: what they share. The binary `panoply` runs as a child process, and is spoken to over real sockets.
//!
//! A test says where models come from and with which options to start ([`Launch`]), starts a [`Server`], and asks it
//! things through an [`Http`] client. Conditions are waited for with [`until`], never slept for.

mod answer;
mod archives;
mod binary;
mod certificates;
mod collector;
mod config;
mod driver;
mod effort;
mod endless;
mod faults;
mod gate;
mod http;
mod launch;
mod log;
mod metrics;
mod onnx;
mod poll;
mod python;
mod server;
mod stores;
mod tensor;

pub use answer::Answer;
pub use archives::{
    adding_archive, batching_archive, echo, echo_named, onnx_archive, padding, pipeline_archive, pipeline_of,
    scaling_archive, scaling_twice_archive, spin_archive, spin_request,
};
pub use binary::panoply;
pub use certificates::Certificates;
pub use collector::{CollectedSpan, Collector};
pub use config::Config;
pub use driver::Driver;
pub use effort::effort;
pub use endless::{ENDLESS, Endless};
pub use faults::{Asked, Fault, FaultProxy};
pub use gate::Gate;
pub use http::Http;
pub use launch::Launch;
pub use metrics::Metrics;
pub use onnx::{generated_model, prepared_model};
pub use poll::{PATIENCE, until};
pub use python::python;
pub use server::Server;
pub use stores::{FolderStore, S3Store, SignedFolderStore, Store};
pub use tensor::{binary_request, bytes_tensor, fp32, infer, texts};

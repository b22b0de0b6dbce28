//! What the backend must be told at start.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use inference::Weights;

/// How to start the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnnxRuntimeConfig {
    /// ONNX Runtime's shared library, 1.24 or newer (`libonnxruntime.so` of PyPI's `onnxruntime` or `onnxruntime-gpu`).
    pub library: PathBuf,
    /// Threads of the one pool that all models share; by default as many as the process may use cores.
    pub intra_op_threads: Option<NonZeroUsize>,
    /// Refuse a model that is meant for a GPU and cannot run there, instead of running it on the host.
    pub require_gpu: bool,
    /// Where weights are, for models that do not say it themselves.
    pub weights: Weights,
    /// The CUDA ordinals of the GPUs that models may be placed on.
    pub gpus: Vec<u32>,
}

//! A response, free of any wire format, and what is told along with it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{ModelInfo, NamedTensor, Parameters, Tensor};

/// The answer to one [`crate::InferRequest`].
#[derive(Clone, Debug, Default)]
pub struct InferResponse {
    /// Output tensors, in the model's order; only those that were wanted.
    pub outputs: Vec<NamedTensor>,
    /// Parameters that the model set.
    pub parameters: Parameters,
    /// What the backend spent where; the scheduler adds it to the model's statistics.
    pub timing: ComputeTiming,
    /// The model that answered; set by the scheduler, not by a backend.
    pub model: Option<Arc<ModelInfo>>,
    /// Where the model was found; set by the model cache for target models.
    pub cache: Option<CacheOutcome>,
    /// The model said that this is its last response to the request. That it did not say so means nothing: what comes after
    /// the last response of a stream is the stream's end.
    pub is_final: bool,
    /// Kept until the answer has been written: pins the model whose memory the outputs may share. Set by the model cache.
    pub guard: Option<Arc<dyn Any + Send + Sync>>,
}

impl InferResponse {
    /// A response of these outputs.
    pub fn new(outputs: Vec<NamedTensor>) -> Self {
        InferResponse { outputs, ..InferResponse::default() }
    }

    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs.iter().find(|output| &*output.name == name).map(|output| &output.tensor)
    }
}

/// How long a backend took for the parts of one execution; all zero when it does not tell them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComputeTiming {
    /// Preparing inputs.
    pub input: Duration,
    /// Running the model.
    pub infer: Duration,
    /// Handing out outputs.
    pub output: Duration,
}

impl ComputeTiming {
    /// Adds another execution's (saturating).
    pub fn add(&mut self, more: &ComputeTiming) {
        let add = |sum: &mut Duration, more: Duration| *sum = sum.saturating_add(more);
        add(&mut self.input, more.input);
        add(&mut self.infer, more.infer);
        add(&mut self.output, more.output);
    }
}

/// Where a request found its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheTier {
    /// It was loaded.
    Memory,
    /// It had to be loaded from the disk cache.
    Disk,
    /// Its archive had to be fetched from the model store.
    Store,
}

impl CacheTier {
    /// As the header `X-Panoply-Cache` and metric labels say it.
    pub const fn name(self) -> &'static str {
        match self {
            CacheTier::Memory => "memory",
            CacheTier::Disk => "disk",
            CacheTier::Store => "store",
        }
    }
}

impl fmt::Display for CacheTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a request's model came to be in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOutcome {
    /// Where it was found.
    pub tier: CacheTier,
    /// The archive's ETag (of a store), or its change time (of a folder).
    pub version: Arc<str>,
    /// What its load took, for the requests that waited for it.
    pub load: Option<LoadTiming>,
}

/// The parts of a load, wall clock. Unpacking runs while the download does, so `unpack` counts only what came after the
/// last byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadTiming {
    /// From the store's first byte asked for to its last byte received.
    pub download: Duration,
    /// From the last byte received to the directory's appearance in the disk cache.
    pub unpack: Duration,
    /// From there to every model being ready, room made included.
    pub load: Duration,
}

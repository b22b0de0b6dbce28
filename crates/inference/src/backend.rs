//! The seam to runtimes: what loads a model file and runs batches on it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::{
    Cancellation, Device, Error, Growth, InferRequest, InferResponse, MemoryUsage, ModelSpec, ResponseSink, Result,
};

/// One version of a model on disk.
#[derive(Clone, Debug)]
pub struct ModelArtifact {
    /// The model's specification.
    pub spec: Arc<ModelSpec>,
    /// Which version this is.
    pub version: u64,
    /// The model's directory: the one that holds `config.pbtxt` and the version directories.
    pub directory: PathBuf,
    /// The version's directory; it may not exist for backends that need no file.
    pub version_directory: PathBuf,
    /// No byte of these files changes for as long as the model is loaded, so that they may be mapped into memory.
    pub immutable: bool,
}

impl ModelArtifact {
    /// The model's file: `default_model_filename` of the configuration, or else `default` within the version directory.
    pub fn file(&self, default: &str) -> PathBuf {
        self.version_directory.join(self.spec.default_model_filename.as_deref().unwrap_or(default))
    }
}

/// Where to put the instances of a model: one entry per instance, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The device of each instance; never empty.
    pub instances: Vec<Device>,
}

impl Placement {
    /// `count` instances on the host.
    pub fn on_host(count: usize) -> Self {
        Placement { instances: vec![Device::Host; count.max(1)] }
    }
}

/// A model in memory. Dropping it frees what it holds.
pub struct LoadedModel {
    /// Its instances, one per entry of the [`Placement`].
    pub instances: Vec<Box<dyn ModelInstance>>,
    /// What it takes on each device, as well as the backend can tell.
    pub memory: MemoryUsage,
}

/// Requests that run together. Today a batch holds one request, into which the scheduler has joined the tensors of those
/// that it batches; an instance must accept any number from 1 on.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The requests; every tensor has been checked against the model's specification, and has the shape that the backend
    /// sees (`reshape` applied). Optional inputs may be absent.
    pub requests: Vec<InferRequest>,
    /// Cancelled once nobody waits for any of them.
    pub cancellation: Cancellation,
}

impl Batch {
    /// Requests that nobody can cancel.
    pub fn new(requests: Vec<InferRequest>) -> Self {
        Batch { requests, cancellation: Cancellation::never() }
    }
}

/// What loads and runs one kind of model; looked up by the configuration's `backend` or `platform`.
///
/// Calls block, and are made on threads that carry no requests. They may come from several threads at once.
pub trait Backend: Send + Sync {
    /// The name that configurations use: `onnxruntime`.
    fn name(&self) -> &str;

    /// Fills in what the configuration leaves out (inputs, outputs, batch size), from the model's own file. The default
    /// changes nothing. What the configuration does say is never changed.
    ///
    /// # Errors
    /// InvalidArgument when the file cannot tell.
    fn complete(&self, model: &ModelArtifact) -> Result<ModelSpec> {
        Ok(ModelSpec::clone(&model.spec))
    }

    /// Bytes that [`Backend::load`] is expected to take, from the files' sizes (in bytes, all files of the version
    /// directory together). Asked before the load, to make room.
    fn estimate(&self, model: &ModelArtifact, file_bytes: u64, placement: &Placement) -> MemoryUsage;

    /// Loads a model whose specification is complete.
    ///
    /// # Errors
    /// InvalidArgument when the file and the specification contradict each other, naming every contradiction; Internal
    /// when the runtime fails. Nothing stays allocated after an error.
    fn load(&self, model: &ModelArtifact, placement: &Placement) -> Result<LoadedModel>;
}

/// One copy of a loaded model.
pub trait ModelInstance: Send {
    /// Runs one batch and blocks until it is done. Returns exactly one result per request, in the requests' order. A
    /// response holds the outputs that its request wants ([`InferRequest::wants`]), in the specification's order and with
    /// the shapes that the backend produces (`reshape` is undone by the caller).
    ///
    /// A run that can be ended ends once [`Batch::cancellation`] is cancelled, with the error of [`Cancellation::check`] for
    /// what is not done, and the instance is as good as before. A backend that cannot do that runs to the end.
    ///
    /// After a panic the instance is not used again.
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>>;

    /// Runs one request of a decoupled model (`model_transaction_policy { decoupled: true }`), which may have any number of
    /// responses, and blocks until the instance is ready for another request. The responses may go on from a thread of the
    /// backend's own after that. The default answers once, with what [`ModelInstance::execute`] returns.
    ///
    /// After a panic the instance is not used again.
    fn stream(&mut self, request: InferRequest, mut responses: Box<dyn ResponseSink>) {
        let mut results = self.execute(Batch { cancellation: responses.cancellation(), requests: vec![request] });
        let result = match (results.pop(), results.len()) {
            (Some(result), 0) => result,
            (_, others) => Err(Error::internal(format!(
                "a backend returned {} results for a batch of 1 request",
                others + usize::from(others > 0)
            ))
            .from_model()),
        };
        let sent = result.and_then(|response| responses.send(InferResponse { is_final: true, ..response }));
        responses.end(sent);
    }

    /// The model as something that can grow and shrink with its use, where it can; its instances give the same.
    fn growth(&self) -> Option<Arc<dyn Growth>> {
        None
    }

    /// Whether executing this batch is over in some 100 µs, waits for nothing and cannot hang. Then it runs in the request's
    /// own task: handing it to another would cost more.
    fn is_brief(&self, _batch: &Batch) -> bool {
        false
    }
}

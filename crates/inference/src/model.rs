//! What a model is, as its configuration says: inputs, outputs, instances, and an ensemble's steps.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    DataType, DynamicBatching, ModelName, RaggedBatching, RateLimiter, SequenceBatching, Shape, TensorName,
    WarmupSample, Weights,
};

/// An input that a model declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// The name in requests.
    pub name: TensorName,
    /// The element type.
    pub datatype: DataType,
    /// Dimensions without the batch dimension; -1 where any size is accepted.
    pub dims: Shape,
    /// The shape (again without the batch dimension) that the backend sees instead of `dims`.
    pub reshape: Option<Shape>,
    /// A request may leave it out.
    pub optional: bool,
}

/// An output that a model declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// The name in responses.
    pub name: TensorName,
    /// The element type.
    pub datatype: DataType,
    /// Dimensions without the batch dimension; -1 where any size may come.
    pub dims: Shape,
    /// The shape (again without the batch dimension) that the backend returns instead of `dims`.
    pub reshape: Option<Shape>,
    /// A file of one label per line, relative to the model's directory.
    pub label_filename: Option<PathBuf>,
}

/// Where the instances of a group are meant to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InstanceKind {
    /// On a GPU if there is one and the backend can use it, on the host otherwise.
    #[default]
    Auto,
    /// On the host.
    Cpu,
    /// On a GPU.
    Gpu,
    /// The model's own business.
    Model,
}

/// `instance_group`: so many copies of the model, each able to run one batch at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceGroup {
    /// How many instances (per GPU where `kind` is [`InstanceKind::Gpu`]); at least 1.
    pub count: u32,
    /// Where they run.
    pub kind: InstanceKind,
    /// GPU ordinals; empty means every GPU.
    pub gpus: Vec<u32>,
    /// What its instances need to run, and how often they get a chance.
    pub rate_limiter: RateLimiter,
}

impl Default for InstanceGroup {
    fn default() -> Self {
        InstanceGroup { count: 1, kind: InstanceKind::Auto, gpus: Vec::new(), rate_limiter: RateLimiter::default() }
    }
}

/// Which versions of a model are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The so many highest.
    Latest(u32),
    /// All that are there.
    All,
    /// These, which must be there.
    Specific(Vec<u64>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        VersionPolicy::Latest(1)
    }
}

/// One step of an ensemble: a composing model, and how its tensors are named within the ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSpec {
    /// The composing model's name.
    pub model: ModelName,
    /// Its version; `None` for the newest served.
    pub version: Option<u64>,
    /// The model's input name → the ensemble's tensor name.
    pub inputs: BTreeMap<TensorName, TensorName>,
    /// The model's output name → the ensemble's tensor name.
    pub outputs: BTreeMap<TensorName, TensorName>,
}

/// `ensemble_scheduling`: the steps, in the order in which the configuration lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnsembleSpec {
    /// The steps.
    pub steps: Vec<StepSpec>,
    /// How many responses of a decoupled step may be under way in the steps below it, for each request; `None` for the
    /// server's own bound.
    pub max_inflight_requests: Option<u32>,
}

impl EnsembleSpec {
    /// An ensemble of these steps.
    pub fn new(steps: Vec<StepSpec>) -> Self {
        EnsembleSpec { steps, max_inflight_requests: None }
    }
}

/// A model's configuration, reduced to what serving it needs (the full message is in [`ModelInfo::config`]).
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// The name within its archive or repository.
    pub name: ModelName,
    /// The backend's name (`onnxruntime`, `identity`, …); `ensemble` for an ensemble.
    pub backend: String,
    /// Triton's name of the platform (`onnxruntime_onnx`, `ensemble`), or the backend's where there is no such name.
    pub platform: String,
    /// The largest batch; 0 means that the model has no batch dimension.
    pub max_batch_size: u32,
    /// Inputs, in the configuration's order.
    pub inputs: Vec<InputSpec>,
    /// Outputs, in the configuration's order.
    pub outputs: Vec<OutputSpec>,
    /// Which versions are served.
    pub version_policy: VersionPolicy,
    /// The model file's name within a version directory, when the configuration gives one.
    pub default_model_filename: Option<String>,
    /// Instance groups; never empty.
    pub instance_groups: Vec<InstanceGroup>,
    /// `parameters` of the configuration.
    pub parameters: BTreeMap<String, String>,
    /// The steps, for an ensemble.
    pub ensemble: Option<EnsembleSpec>,
    /// A request may have any number of responses, zero included. Derived from the steps for an ensemble.
    pub decoupled: bool,
    /// How requests are joined into batches; `None` where each runs on its own.
    pub dynamic_batching: Option<DynamicBatching>,
    /// How requests that belong together reach the model; `None` where each stands alone. Never beside `dynamic_batching`.
    pub sequence_batching: Option<SequenceBatching>,
    /// How requests whose inputs differ in shape share a batch; empty where they do not.
    pub ragged: RaggedBatching,
    /// Answers may come from the response cache, where the server has one.
    pub response_cache: bool,
    /// `metric_tags` of the configuration: labels of the model's metrics, each behind an underscore.
    pub metric_tags: BTreeMap<String, String>,
    /// Requests that every instance runs before the model counts as ready.
    pub warmup: Vec<WarmupSample>,
    /// Upper bounds of the buckets of its histogram of times to the first response, in milliseconds and ascending, where its
    /// configuration has some (`model_metrics`).
    pub first_response_buckets: Option<Vec<f64>>,
    /// How long a request may take, when the parameter `infer_timeout` overrides the server's default.
    pub infer_timeout: Option<Duration>,
    /// Bytes that the model takes once loaded, when the parameter `memory_bytes` says so.
    pub memory_bytes: Option<u64>,
    /// Where its weights are, when the parameter `weights` overrides the server's default.
    pub weights: Option<Weights>,
}

impl ModelSpec {
    /// The backend name of ensembles.
    pub const ENSEMBLE: &'static str = "ensemble";

    /// A model without inputs, outputs or parameters: a starting point for tests and for completion by a backend.
    pub fn new(name: impl Into<ModelName>, backend: impl Into<String>) -> Self {
        let backend = backend.into();
        ModelSpec {
            name: name.into(),
            platform: backend.clone(),
            backend,
            max_batch_size: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            version_policy: VersionPolicy::default(),
            default_model_filename: None,
            instance_groups: vec![InstanceGroup::default()],
            parameters: BTreeMap::new(),
            ensemble: None,
            decoupled: false,
            dynamic_batching: None,
            sequence_batching: None,
            ragged: RaggedBatching::default(),
            response_cache: false,
            metric_tags: BTreeMap::new(),
            warmup: Vec::new(),
            first_response_buckets: None,
            infer_timeout: None,
            memory_bytes: None,
            weights: None,
        }
    }

    /// Whether requests carry a batch dimension.
    pub fn batches(&self) -> bool {
        self.max_batch_size > 0
    }

    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<&InputSpec> {
        self.inputs.iter().find(|input| &*input.name == name)
    }

    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<&OutputSpec> {
        self.outputs.iter().find(|output| &*output.name == name)
    }

    /// A declared shape as a client sees it: with a leading -1 where the model batches.
    pub fn full_shape(&self, dims: &Shape) -> Shape {
        if self.batches() { dims.with_batch(-1) } else { dims.clone() }
    }
}

/// What can be told about a model that is served.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// Its specification, completed by its backend.
    pub spec: Arc<ModelSpec>,
    /// The version that this is about.
    pub version: u64,
    /// Every version that is served, ascending.
    pub versions: Vec<u64>,
    /// The full configuration: an encoded `inference.ModelConfig` message.
    pub config: Bytes,
    /// Labels by output name, read from `label_filename`.
    pub labels: HashMap<TensorName, Vec<String>>,
}

//! The vocabulary of Panoply: tensors, models, requests, errors, and the traits at which crates meet.
//!
//! This crate does no I/O, starts no thread, knows no wire format and no runtime. Everything else depends on it, so it
//! stays small and its contracts are written down: what a [`Backend`] must do is on the trait, what a [`Tensor`]'s bytes
//! mean is on the type.

mod backend;
mod batching;
mod bytes_tensor;
mod cancellation;
mod check;
mod control;
mod correlation;
mod datatype;
mod device;
mod device_memory;
mod error;
mod growth;
pub mod identity;
mod key;
mod model;
mod ragged;
mod rate;
pub mod repeat;
mod request;
mod reshape;
mod response;
mod sequence;
mod service;
mod shape;
mod sink;
pub mod square;
mod statistics;
mod stream;
mod tensor;
mod trace;
mod warmup;
mod weights;

pub use backend::{Backend, Batch, LoadedModel, ModelArtifact, ModelInstance, Placement};
pub use batching::{DynamicBatching, QueuePolicy, TimeoutAction};
pub use bytes_tensor::{BytesElements, encode_bytes_elements};
pub use cancellation::{CancelCause, Cancellation, Interrupt, Interrupting};
pub use check::check_request;
pub use control::LoadOverrides;
pub use correlation::{CorrelationId, SequencePlace};
pub use datatype::DataType;
pub use device::{Device, MemoryUsage};
pub use device_memory::{DeviceMapping, DeviceMemory, DeviceMemoryHandle};
pub use error::{Error, ErrorKind, Origin, Result};
pub use growth::{Growth, GrowthAdvice, MemoryGrant};
pub use key::{ModelKey, ModelName, TargetModel};
pub use model::{
    EnsembleSpec, InputSpec, InstanceGroup, InstanceKind, ModelInfo, ModelSpec, OutputSpec, StepSpec, VersionPolicy,
};
pub use ragged::{BatchInput, BatchInputKind, BatchOutput, RaggedBatching};
pub use rate::{RateLimiter, ResourceDemand};
pub use request::{InferRequest, Parameter, Parameters};
pub use reshape::{to_model_shape, to_request_shape};
pub use response::{CacheOutcome, CacheTier, ComputeTiming, InferResponse, LoadTiming};
pub use sequence::{SequenceBatching, SequenceControl, SequenceFlag, SequenceSignal, SequenceState, SequenceStrategy};
pub use service::{
    BoxFuture, BoxStream, Description, IndexEntry, InferenceService, ModelControl, ModelState, RegisteredModel,
};
pub use shape::Shape;
pub use sink::ResponseSink;
pub use statistics::{BatchStatistics, InferStatistics, ModelStatistics, ResponseStatistics, StatisticDuration};
pub use tensor::{Element, NamedTensor, Tensor, TensorName};
pub use trace::{EndedSpan, Span, SpanRecorder, Trace, TraceContext};
pub use warmup::{WarmupData, WarmupInput, WarmupSample};
pub use weights::Weights;

//! A loaded model: its session, and what a run of it needs to know.

use std::ffi::CString;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use inference::{Error, ErrorKind, MemoryGrant, ModelName, ModelSpec, Result, TensorName};
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::error::ErrorCode;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::session::builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder};

use crate::arena::Arena;
use crate::mapping::{MappableModel, MappedWeights};
use crate::metrics::CopyCounters;
use crate::{port, verify};

/// What [`open`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Runs: the graph is optimised and weights are repacked.
    Run,
    /// Runs with weights as they are: the graph is optimised, but neither are weights repacked nor is it rewritten for
    /// layouts of them that convolutions run faster with, which would all be copies.
    RunMapped,
    /// Only to read the signature: as little as possible is done.
    Inspect,
}

/// Opens a model file.
///
/// # Errors
/// NotFound, Unsupported (an operator that this runtime lacks), InvalidArgument (a file that is no valid model) or Internal,
/// each with ONNX Runtime's words.
pub(crate) fn open(
    environment: &Environment,
    spec: &ModelSpec,
    file: &Path,
    providers: &[ExecutionProviderDispatch],
    purpose: Purpose,
) -> Result<Session> {
    let build = || builder(environment, spec, providers, purpose)?.commit_from_file(file);
    build().map_err(|error| does_not_load(spec, &error))
}

/// Opens a model whose weights stay in its files. They must live longer than the session.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_mapped(
    environment: &Environment,
    spec: &ModelSpec,
    model: MappableModel,
    providers: &[ExecutionProviderDispatch],
) -> Result<(Session, MappedWeights)> {
    let build = || {
        let builder = builder(environment, spec, providers, Purpose::RunMapped)?;
        let (mut builder, skeleton, weights) = model.lend(builder)?;
        Ok((builder.commit_from_memory(&skeleton)?, weights))
    };
    build().map_err(|error| does_not_load(spec, &error))
}

fn builder(
    environment: &Environment,
    spec: &ModelSpec,
    providers: &[ExecutionProviderDispatch],
    purpose: Purpose,
) -> ort::Result<SessionBuilder> {
    let level = match purpose {
        Purpose::Run => GraphOptimizationLevel::All,
        Purpose::RunMapped => GraphOptimizationLevel::Level2,
        Purpose::Inspect => GraphOptimizationLevel::Disable,
    };
    let pattern = spec.parameters.get("enable_mem_pattern").is_none_or(|value| value.trim() != "0");
    Ok(Session::builder(environment)?
        .with_auto_device(AutoDevicePolicy::PreferCPU)?
        .with_execution_providers(providers)?
        .with_optimization_level(level)?
        .with_prepacking(purpose == Purpose::Run)?
        .with_memory_pattern(pattern)?
        .with_env_allocators()?
        .with_log_id(&*spec.name)?)
}

fn does_not_load(spec: &ModelSpec, error: &ort::Error) -> Error {
    let kind = match error.code() {
        ErrorCode::NoSuchFile => ErrorKind::NotFound,
        ErrorCode::NotImplemented => ErrorKind::Unsupported,
        ErrorCode::InvalidArgument
        | ErrorCode::InvalidProtobuf
        | ErrorCode::InvalidGraph
        | ErrorCode::NoModel
        | ErrorCode::GenericFailure => ErrorKind::InvalidArgument,
        _ => ErrorKind::Internal,
    };
    let message = format!("model '{}': ONNX Runtime does not load it: {}", spec.name, error.message());
    Error::new(kind, message).with_model(&*spec.name)
}

/// A session together with the names that the configuration declares; shared by the instances that run it.
pub(crate) struct LoadedSession {
    // It may use the weights, so it comes first and is dropped first.
    session: Session,
    _weights: Option<MappedWeights>,
    arena: Arc<Arena>,
    model: ModelName,
    inputs: Vec<InputSlot>,
    outputs: Vec<OutputSlot>,
    host_memory: MemoryInfo<'static>,
    copies: CopyCounters,
    // The memory is free once all of the above is gone, so it comes last.
    grant: OnceLock<MemoryGrant>,
}

/// A declared input.
pub(crate) struct InputSlot {
    pub(crate) name: TensorName,
    pub(crate) c_name: CString,
    /// The model has no initializer to take instead.
    pub(crate) required: bool,
}

/// A declared output.
pub(crate) struct OutputSlot {
    pub(crate) name: TensorName,
    pub(crate) c_name: CString,
}

impl LoadedSession {
    /// Puts a session to work for a configuration.
    ///
    /// # Errors
    /// As [`verify::verify`]; Internal when ONNX Runtime fails.
    pub(crate) fn new(
        session: Session,
        weights: Option<MappedWeights>,
        arena: Arc<Arena>,
        spec: &ModelSpec,
    ) -> Result<Self> {
        let signature = port::signature(&session);
        verify::verify(spec, &signature)?;
        let required = |name: &str| signature.inputs.iter().any(|port| port.name == name);
        let inputs = spec.inputs.iter().map(|input| &input.name).chain(spec.ragged.made_inputs());
        let inputs = inputs.map(|name| {
            let c_name = c_name(name)?;
            Ok(InputSlot { required: required(name), name: name.clone(), c_name })
        });
        let outputs = spec.outputs.iter().map(|output| {
            let c_name = c_name(&output.name)?;
            Ok(OutputSlot { name: output.name.clone(), c_name })
        });
        let host_memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)
            .map_err(|error| Error::internal(format!("model '{}': {}", spec.name, error.message())))?;
        Ok(LoadedSession {
            inputs: inputs.collect::<Result<_>>()?,
            outputs: outputs.collect::<Result<_>>()?,
            model: spec.name.clone(),
            copies: CopyCounters::new(),
            host_memory,
            arena,
            session,
            _weights: weights,
            grant: OnceLock::new(),
        })
    }

    /// Keeps the grant of the memory that this takes for as long as it lives, whoever holds it.
    pub(crate) fn keep(&self, grant: MemoryGrant) {
        let kept = self.grant.set(grant);
        debug_assert!(kept.is_ok(), "invariant: memory is granted once");
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    pub(crate) fn inputs(&self) -> &[InputSlot] {
        &self.inputs
    }

    pub(crate) fn outputs(&self) -> &[OutputSlot] {
        &self.outputs
    }

    pub(crate) fn host_memory(&self) -> &MemoryInfo<'static> {
        &self.host_memory
    }

    pub(crate) fn copies(&self) -> &CopyCounters {
        &self.copies
    }
}

fn c_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error::invalid_argument(format!("the name {name:?} holds a NUL")))
}

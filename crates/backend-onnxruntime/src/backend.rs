//! The backend itself: completes, estimates and loads ONNX models.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inference::{
    Backend, Device, Error, InstanceKind, LoadedModel, MemoryUsage, ModelArtifact, ModelInstance, ModelSpec, Placement,
    Result, Weights,
};
use ort::session::Session;

use crate::environment::Runtime;
use crate::instance::SessionInstance;
use crate::mapping::MappedWeights;
use crate::served::{ByUse, Served};
use crate::session::{LoadedSession, Purpose, open};
use crate::{OnnxRuntimeConfig, complete, environment, host, memory, metrics, port, providers};

/// Runs ONNX models.
pub struct OnnxRuntimeBackend {
    runtime: Runtime,
    require_gpu: bool,
    gpus: Vec<u32>,
    /// The library is built for them.
    can_use_gpus: bool,
    weights: Weights,
}

impl OnnxRuntimeBackend {
    /// What configurations call it.
    pub const NAME: &'static str = "onnxruntime";

    /// The model file's name where a configuration gives none.
    pub const DEFAULT_FILE: &'static str = "model.onnx";

    /// Opens the library and starts the process's environment and thread pool. A process has one of each: a second start
    /// shares what the first one made.
    ///
    /// # Errors
    /// Unavailable when the library cannot be opened or is older than 1.24, saying what to install and set; AlreadyExists
    /// when the process runs another library already.
    pub fn start(config: OnnxRuntimeConfig) -> Result<Arc<Self>> {
        let runtime = environment::start(&config)?;
        let OnnxRuntimeConfig { require_gpu, gpus, weights, .. } = config;
        let can_use_gpus = !gpus.is_empty() && providers::can_use_gpus();
        if !gpus.is_empty() && !can_use_gpus {
            tracing::warn!(?gpus, "this ONNX Runtime is built without CUDA: ONNX models will run on the host");
        }
        Ok(Arc::new(OnnxRuntimeBackend { runtime, require_gpu, gpus, can_use_gpus, weights }))
    }

    fn open_on_gpu(&self, spec: &ModelSpec, file: &Path, ordinal: u32) -> Result<Session> {
        if !self.gpus.contains(&ordinal) {
            return Err(Error::unavailable(format!("model '{}': ONNX Runtime has no GPU {ordinal}", spec.name)));
        }
        open(&self.runtime.environment, spec, file, &providers::gpu(spec, ordinal), Purpose::Run)
    }

    /// What becomes of a model that is meant for a GPU and cannot have it.
    fn fall_back(&self, spec: &ModelSpec, why: &str) -> Result<()> {
        if self.require_gpu {
            return Err(Error::unavailable(format!(
                "model '{}' is meant for a GPU and cannot run there ({why}), and --require-gpu is set",
                spec.name
            ))
            .with_model(&*spec.name));
        }
        metrics::count_gpu_fallback();
        tracing::warn!(model = &*spec.name, why, "the model is meant for a GPU and runs on the host instead");
        Ok(())
    }
}

impl Backend for OnnxRuntimeBackend {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn complete(&self, model: &ModelArtifact) -> Result<ModelSpec> {
        if !complete::is_needed(&model.spec) {
            return Ok(ModelSpec::clone(&model.spec));
        }
        let file = model_file(model)?;
        let providers = providers::host(&model.spec);
        let _entered = self.runtime.arena.enter();
        let session = open(&self.runtime.environment, &model.spec, &file, &providers, Purpose::Inspect)?;
        complete::complete(&model.spec, &port::signature(&session))
    }

    /// Three halves of the files' size, once for all instances on the host and once for each on a GPU; on the host next to
    /// nothing where weights stay in their files. What is meant for a GPU that cannot be used runs on the host.
    fn estimate(&self, model: &ModelArtifact, file_bytes: u64, placement: &Placement) -> MemoryUsage {
        let usable = |device: &Device| match device {
            Device::Gpu(ordinal) if self.can_use_gpus && self.gpus.contains(ordinal) => *device,
            _ => Device::Host,
        };
        let placement = Placement { instances: placement.instances.iter().map(usable).collect() };
        let in_files = match host::wanted(model, self.weights) {
            Weights::Mapped | Weights::Auto if placement.instances.contains(&Device::Host) => {
                host::estimate_in_files(&model.file(Self::DEFAULT_FILE))
            }
            _ => None,
        };
        memory::estimate(file_bytes, in_files, &placement)
    }

    fn load(&self, model: &ModelArtifact, placement: &Placement) -> Result<LoadedModel> {
        let file = model_file(model)?;
        Loading {
            backend: self,
            spec: &model.spec,
            file_bytes: memory::file_bytes(&file),
            file,
            weights: host::wanted(model, self.weights),
            parts: Parts::default(),
        }
        .load(placement)
    }
}

/// One load under way.
struct Loading<'a> {
    backend: &'a OnnxRuntimeBackend,
    spec: &'a ModelSpec,
    file: PathBuf,
    file_bytes: u64,
    weights: Weights,
    parts: Parts,
}

/// What a load has made so far.
#[derive(Default)]
struct Parts {
    instances: Vec<Box<dyn ModelInstance>>,
    memory: MemoryUsage,
    /// What all instances on the host share.
    host: Option<Served>,
    fell_back: bool,
}

impl Loading<'_> {
    fn load(mut self, placement: &Placement) -> Result<LoadedModel> {
        let gpu_wanted = self.spec.instance_groups.iter().any(|group| group.kind == InstanceKind::Gpu);
        if gpu_wanted && placement.instances.iter().all(|device| *device == Device::Host) {
            self.fall_back("no GPU is available")?;
        }
        for device in &placement.instances {
            let served = match device {
                Device::Host => self.on_host()?,
                Device::Gpu(ordinal) => self.on_gpu(*ordinal)?,
            };
            self.parts.instances.push(Box::new(SessionInstance::new(served)?));
        }
        Ok(LoadedModel { instances: self.parts.instances, memory: self.parts.memory })
    }

    fn on_host(&mut self) -> Result<Served> {
        if let Some(served) = &self.parts.host {
            return Ok(served.clone());
        }
        let runtime = &self.backend.runtime;
        let opened = match self.weights {
            Weights::Private => host::open_private(runtime, self.spec, &self.file, self.file_bytes)?,
            Weights::Mapped | Weights::Auto => host::open_in_files(runtime, self.spec, &self.file, self.file_bytes)?,
        };
        let by_use = self.weights == Weights::Auto && opened.weights.is_some();
        let session = self.finish(opened.session, opened.weights, Device::Host, opened.bytes)?;
        let served = if by_use {
            let file = (self.file.clone(), self.file_bytes);
            Served::ByUse(ByUse::new(self.backend.runtime.clone(), self.spec, file, session))
        } else {
            Served::Fixed(session)
        };
        self.parts.host = Some(served.clone());
        Ok(served)
    }

    fn on_gpu(&mut self, ordinal: u32) -> Result<Served> {
        match self.backend.open_on_gpu(self.spec, &self.file, ordinal) {
            Ok(session) => {
                let bytes = memory::of_session(memory::on_gpu(&session, ordinal), self.file_bytes);
                self.finish(session, None, Device::Gpu(ordinal), bytes).map(Served::Fixed)
            }
            Err(error) => {
                self.fall_back(error.message())?;
                self.on_host()
            }
        }
    }

    /// Warns and counts once per load, however many instances it concerns.
    fn fall_back(&mut self, why: &str) -> Result<()> {
        if !std::mem::replace(&mut self.parts.fell_back, true) {
            self.backend.fall_back(self.spec, why)?;
        }
        Ok(())
    }

    /// Checks a new session against the configuration and counts its memory.
    fn finish(
        &mut self,
        session: Session,
        weights: Option<MappedWeights>,
        device: Device,
        bytes: u64,
    ) -> Result<Arc<LoadedSession>> {
        let session = LoadedSession::new(session, weights, self.backend.runtime.arena.clone(), self.spec)?;
        self.parts.memory.add_all(&memory::of_session_on(device, bytes));
        Ok(Arc::new(session))
    }
}

/// The model's file, which must be there.
fn model_file(model: &ModelArtifact) -> Result<PathBuf> {
    let file = model.file(OnnxRuntimeBackend::DEFAULT_FILE);
    if file.is_file() {
        return Ok(file);
    }
    let spec = &model.spec;
    Err(Error::invalid_argument(format!(
        "model '{}': version {} has no file '{}'; put the model there, or set default_model_filename",
        spec.name,
        model.version,
        file.strip_prefix(&model.directory).unwrap_or(&file).display()
    ))
    .with_model(&*spec.name))
}

//! Copies of ONNX models in this process, and the memory that it has for itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use backend_onnxruntime::{OnnxRuntimeBackend, OnnxRuntimeConfig};
use inference::{
    Backend, Batch, DataType, InferRequest, LoadedModel, ModelArtifact, ModelSpec, NamedTensor, Placement, Shape,
    Tensor, Weights,
};

use crate::{dense, machine};

/// Layers of 4 MiB each: a model of 40 MiB.
const LAYERS: usize = 10;
/// Rows and columns of each layer's weights, which take 4 MiB.
const WIDTH: usize = 1024;
/// What a dimension of any size is set to: tokens.
const TOKENS: i64 = 32;

/// A model that copies are made of.
pub struct Original {
    backend: Arc<OnnxRuntimeBackend>,
    artifact: ModelArtifact,
}

impl Original {
    /// The models that there are: the one that is made for this, and the demo's.
    pub const NAMES: [&str; 4] = ["dense", "minilm", "minilm-int8", "mobilenet"];

    /// One of them. What has to be made is made in `scratch`.
    ///
    /// # Errors
    /// When it is not there, or ONNX Runtime is not.
    pub fn open(name: &str, scratch: &Path) -> Result<Self> {
        let demo = test_util::artifacts().join("model_repository");
        let directory: PathBuf = match name {
            "dense" => {
                let file = scratch.join("model.onnx");
                fs::write(&file, dense::model(LAYERS, WIDTH)).context("there is no place for a model")?;
                scratch.to_owned()
            }
            "mobilenet" => demo.join("mobilenet/mobilenet/1"),
            encoder => demo.join(encoder).join("encoder/1"),
        };
        let library = machine::library().as_ref().to_owned();
        let backend = OnnxRuntimeBackend::start(OnnxRuntimeConfig { library, ..OnnxRuntimeConfig::default() })?;
        let mut artifact = ModelArtifact {
            spec: Arc::new(ModelSpec::new(name, OnnxRuntimeBackend::NAME)),
            version: 1,
            version_directory: directory.clone(),
            directory,
            immutable: true,
        };
        artifact.spec = Arc::new(backend.complete(&artifact)?);
        Ok(Original { backend, artifact })
    }

    /// Bytes of its file.
    ///
    /// # Errors
    /// When it is gone.
    pub fn file_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(self.artifact.file(OnnxRuntimeBackend::DEFAULT_FILE))?.len())
    }

    /// Loads a copy of it.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn copy(&self, weights: Weights) -> Result<Copy> {
        let mut spec = ModelSpec::clone(&self.artifact.spec);
        spec.weights = Some(weights);
        let artifact = ModelArtifact { spec: Arc::new(spec), ..self.artifact.clone() };
        Ok(Copy(self.backend.load(&artifact, &Placement::on_host(1))?))
    }

    /// A request of so many rows.
    ///
    /// # Errors
    /// For a model whose inputs are neither numbers nor tokens.
    pub fn request(&self, rows: i64) -> Result<InferRequest> {
        let input = |input: &inference::InputSpec| {
            let dims = input.dims.iter().map(|dim| if *dim < 0 { TOKENS } else { *dim });
            let shape: Shape = std::iter::once(rows).chain(dims).collect();
            let count = shape.element_count().context("a small shape")?;
            let tensor = match input.datatype {
                DataType::Fp32 => Tensor::from_vec(shape, (0..count).map(|at| (at % 255) as f32 / 255.0).collect())?,
                DataType::Int64 => Tensor::from_vec(shape, vec![1i64; count])?,
                other => anyhow::bail!("an input of type {other}"),
            };
            Ok(NamedTensor::new(&*input.name, tensor))
        };
        let inputs = self.artifact.spec.inputs.iter().map(input).collect::<Result<_>>()?;
        Ok(InferRequest { inputs, ..InferRequest::default() })
    }
}

/// A loaded model.
pub struct Copy(LoadedModel);

impl Copy {
    /// Runs it once.
    ///
    /// # Errors
    /// What the backend answers with.
    pub fn run(&mut self, request: &InferRequest) -> Result<()> {
        let mut results = self.0.instances[0].execute(Batch::new(vec![request.clone()]));
        let response = results.pop().context("a batch of one request has one result")??;
        ensure!(!response.outputs.is_empty(), "there is no output");
        Ok(())
    }
}

/// Bytes of memory that this process has for itself: `RssAnon`, which is what is left without files and shared memory.
///
/// # Errors
/// Where the kernel does not say.
pub fn private_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("there is no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

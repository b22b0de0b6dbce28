//! The backends without a server: the same model files, loaded and called in this process.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use backend_onnxruntime::{OnnxRuntimeBackend, OnnxRuntimeConfig};
use backend_text::{PoolingBackend, TokenizerBackend};
use inference::identity::IdentityBackend;
use inference::{
    Backend, Batch, InferRequest, InferResponse, ModelArtifact, ModelInstance, NamedTensor, Placement, Tensor,
};
use repository::{Repository, RepositoryModel, read_archive};

use crate::load::Client;
use crate::machine;
use crate::payload;

/// One instance of a model, called from one thread.
pub struct Instance(Box<dyn ModelInstance>);

impl Instance {
    /// Runs one request as a batch of its own.
    ///
    /// # Errors
    /// What the backend answers with.
    pub fn execute(&mut self, request: InferRequest) -> Result<InferResponse> {
        let mut results = self.0.execute(Batch::new(vec![request]));
        Ok(results.pop().context("a batch of one request has one result")??)
    }
}

/// A repository under `target/panoply/model_repository`, which the demo's archives are packed from.
struct Models(Repository);

impl Models {
    fn read(name: &str) -> Result<Self> {
        let folder: PathBuf = test_util::artifacts().join("model_repository").join(name);
        Ok(Models(read_archive(&folder, name)?))
    }

    /// Loads a model with so many instances.
    fn load(&self, backend: &dyn Backend, name: &str, count: usize) -> Result<Vec<Instance>> {
        let model = self.0.models.iter().find(|model| &*model.spec.name == name).context("there is no such model")?;
        let loaded = backend.load(&artifact(model)?, &Placement::on_host(count))?;
        Ok(loaded.instances.into_iter().map(Instance).collect())
    }
}

fn artifact(model: &RepositoryModel) -> Result<ModelArtifact> {
    let version = *model.versions.last().context("a model has a version")?;
    Ok(ModelArtifact {
        spec: Arc::new(model.spec.clone()),
        version,
        directory: model.directory.clone(),
        version_directory: model.version_directory(version),
        immutable: true,
    })
}

/// The `identity` backend with one request.
pub struct Identity {
    instance: Instance,
    request: InferRequest,
}

impl Identity {
    /// So many clients, each with an instance of its own, that send so many numbers.
    ///
    /// # Errors
    /// When the model cannot be loaded.
    pub fn clients(count: usize, numbers: usize) -> Result<Vec<Box<dyn Client>>> {
        let request = payload::identity_request(payload::numbers(numbers))?;
        let instances = Models::read("identity")?.load(&IdentityBackend, "identity", count)?;
        let client = |instance| Box::new(Identity { instance, request: request.clone() }) as Box<dyn Client>;
        Ok(instances.into_iter().map(client).collect())
    }
}

impl Client for Identity {
    fn call(&mut self) -> Result<()> {
        let response = self.instance.execute(self.request.clone())?;
        let Some(output) = response.output("OUTPUT0") else { bail!("there is no output") };
        anyhow::ensure!(output.data().len() == self.request.inputs[0].tensor.data().len(), "the output is another");
        Ok(())
    }
}

/// The models of the MiniLM ensemble, one called after the other by hand.
pub struct MiniLm {
    tokenizer: Instance,
    encoder: Instance,
    pooling: Instance,
    request: InferRequest,
}

impl MiniLm {
    /// So many clients with instances of their own; as in the server, those of the encoder share one session, and ONNX
    /// Runtime has one thread pool with as many threads as there are cores.
    ///
    /// # Errors
    /// When a model cannot be loaded.
    pub fn clients(count: usize) -> Result<Vec<Self>> {
        let library = machine::library().as_ref().to_owned();
        let onnxruntime = OnnxRuntimeBackend::start(OnnxRuntimeConfig { library, ..OnnxRuntimeConfig::default() })?;
        let models = Models::read("minilm")?;
        let tokenizers = models.load(&TokenizerBackend, "tokenizer", count)?;
        let encoders = models.load(&*onnxruntime, "encoder", count)?;
        let poolings = models.load(&PoolingBackend, "pooling", count)?;
        let request = payload::sentences_request()?;
        let parts = tokenizers.into_iter().zip(encoders).zip(poolings);
        let client = |((tokenizer, encoder), pooling)| MiniLm { tokenizer, encoder, pooling, request: request.clone() };
        Ok(parts.map(client).collect())
    }

    /// The embeddings of the request's sentences.
    ///
    /// # Errors
    /// When a model fails.
    pub fn embed(&mut self) -> Result<Tensor> {
        let tokens = self.tokenizer.execute(self.request.clone())?.outputs;
        let mask = tokens.iter().find(|output| &*output.name == "attention_mask").context("there is no mask")?;
        let mask = NamedTensor::new("mask", mask.tensor.clone());
        let hidden = self.encoder.execute(InferRequest { inputs: tokens, ..InferRequest::default() })?;
        let hidden = hidden.output("last_hidden_state").context("there is no hidden state")?.clone();
        let inputs = vec![NamedTensor::new("embeddings", hidden), mask];
        let pooled = self.pooling.execute(InferRequest { inputs, ..InferRequest::default() })?;
        Ok(pooled.output("sentence_embedding").context("there is no embedding")?.clone())
    }
}

impl Client for MiniLm {
    fn call(&mut self) -> Result<()> {
        let embeddings = self.embed()?;
        anyhow::ensure!(embeddings.element_count() == payload::SENTENCES.len() * payload::EMBEDDING, "another shape");
        Ok(())
    }
}

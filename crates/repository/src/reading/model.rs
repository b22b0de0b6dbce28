//! One model of a repository: what was read of it, and its files.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use inference::{Error, InputSpec, ModelSpec, OutputSpec, Result, TensorName, WarmupData};
use protocol::Positions;
use protocol::model_config::{ModelConfig, ModelInput, ModelOutput, ModelTensorReshape, ModelTransactionPolicy};
use walkdir::WalkDir;

/// The largest file of labels that is read; ImageNet's have 30 KiB.
const LARGEST_LABELS: u64 = 64 << 20;

/// A model as its repository has it.
#[derive(Clone, Debug)]
pub struct RepositoryModel {
    /// What serving needs of the configuration; what it leaves out is filled in by the model's backend.
    pub spec: ModelSpec,
    /// The whole configuration, with name, backend, platform and version policy filled in.
    pub config: ModelConfig,
    /// The model's directory.
    pub directory: PathBuf,
    /// The versions to serve, ascending; never empty.
    pub versions: Vec<u64>,
    /// `config.pbtxt`, if there is one.
    pub config_file: Option<PathBuf>,
    /// Where the configuration's fields stand in that file.
    pub positions: Positions,
    /// Its files stay as they are for as long as it is loaded: who keeps the repository says so.
    pub immutable: bool,
    /// How messages name the configuration: relative to the repository.
    pub(super) shown: String,
}

impl RepositoryModel {
    /// Where a field stands, for messages: `preprocess/config.pbtxt:12:7`, relative to the repository. For a field that
    /// the file does not mention: what is around it, or the file alone. `path` is as [`Positions`] describes.
    pub fn locate(&self, path: &str) -> String {
        match self.positions.of(path) {
            Some(position) => format!("{}:{position}", self.shown),
            None => self.shown.clone(),
        }
    }

    /// The directory of a version; it may not exist where the backend needs no file.
    pub fn version_directory(&self, version: u64) -> PathBuf {
        self.directory.join(version.to_string())
    }

    /// The size of all files of a version together; what cannot be read counts as 0.
    pub fn file_bytes(&self, version: u64) -> u64 {
        let files = WalkDir::new(self.version_directory(version)).into_iter().filter_map(Result::ok);
        let sizes = files.filter(|entry| entry.file_type().is_file()).filter_map(|entry| entry.metadata().ok());
        sizes.map(|metadata| metadata.len()).sum()
    }

    /// This model with the specification that its backend has completed, written into the configuration as well.
    #[must_use]
    pub fn completed(mut self, spec: ModelSpec) -> RepositoryModel {
        self.config.max_batch_size = i32::try_from(spec.max_batch_size).unwrap_or(i32::MAX);
        self.config.input = spec.inputs.iter().map(|input| config_input(input, &self.config)).collect();
        self.config.output = spec.outputs.iter().map(|output| config_output(output, &self.config)).collect();
        self.spec = spec;
        self
    }

    /// Settles whether a request may have any number of responses, in the configuration as well.
    pub fn set_decoupled(&mut self, decoupled: bool) {
        self.spec.decoupled = decoupled;
        if decoupled || self.config.model_transaction_policy.is_some() {
            self.config.model_transaction_policy = Some(ModelTransactionPolicy { decoupled });
        }
    }

    /// The whole configuration, as an encoded `inference.ModelConfig` message.
    pub fn encoded_config(&self) -> Bytes {
        protocol::encode_model_config(&self.config).into()
    }

    /// The labels of every output that has some: one per line of its `label_filename`.
    ///
    /// # Errors
    /// InvalidArgument when a file is missing, too large or not UTF-8, naming file and field.
    pub fn read_labels(&self) -> Result<HashMap<TensorName, Vec<String>>> {
        let mut labels = HashMap::new();
        for (index, output) in self.spec.outputs.iter().enumerate() {
            let Some(file) = &output.label_filename else { continue };
            let text = read_text(&self.directory.join(file), LARGEST_LABELS).map_err(|error| {
                let place = self.locate(&format!("output[{index}].label_filename"));
                Error::invalid_argument(format!("{place}: cannot read labels from \"{}\": {error}", file.display()))
            })?;
            labels.insert(output.name.clone(), text.lines().map(|line| line.trim_end().to_owned()).collect());
        }
        Ok(labels)
    }
}

/// The largest file of a warm-up that is read.
const LARGEST_WARMUP: u64 = 1 << 30;

impl RepositoryModel {
    /// The files of the model's warm-up, by the path that its configuration gives.
    ///
    /// # Errors
    /// InvalidArgument when one is missing or too large, naming it.
    pub fn read_warmup_files(&self) -> Result<BTreeMap<PathBuf, Bytes>> {
        let mut files = BTreeMap::new();
        for (index, sample) in self.spec.warmup.iter().enumerate() {
            for input in &sample.inputs {
                let WarmupData::File(file) = &input.data else { continue };
                let path = self.directory.join("warmup").join(file);
                let content = read_bytes(&path, LARGEST_WARMUP).map_err(|error| {
                    let place = self.locate(&format!("model_warmup[{index}]"));
                    let (name, input) = (file.display(), &input.name);
                    Error::invalid_argument(format!(
                        "{place}: cannot read \"warmup/{name}\" for input '{input}': {error}"
                    ))
                })?;
                files.insert(file.clone(), content.into());
            }
        }
        Ok(files)
    }
}

/// The configuration's own entry for an input, brought up to date, or a new one.
fn config_input(spec: &InputSpec, config: &ModelConfig) -> ModelInput {
    let given = config.input.iter().find(|input| *input.name == *spec.name);
    ModelInput {
        name: spec.name.to_string(),
        data_type: spec.datatype.config_number(),
        dims: spec.dims.to_vec(),
        reshape: spec.reshape.as_ref().map(|shape| ModelTensorReshape { shape: shape.to_vec() }),
        optional: spec.optional,
        ..given.cloned().unwrap_or_default()
    }
}

/// The configuration's own entry for an output, brought up to date, or a new one.
fn config_output(spec: &OutputSpec, config: &ModelConfig) -> ModelOutput {
    let given = config.output.iter().find(|output| *output.name == *spec.name);
    ModelOutput {
        name: spec.name.to_string(),
        data_type: spec.datatype.config_number(),
        dims: spec.dims.to_vec(),
        reshape: spec.reshape.as_ref().map(|shape| ModelTensorReshape { shape: shape.to_vec() }),
        ..given.cloned().unwrap_or_default()
    }
}

/// A file's text; InvalidData when it is larger than `limit` or not UTF-8.
pub(super) fn read_text(path: &Path, limit: u64) -> std::io::Result<String> {
    String::from_utf8(read_bytes(path, limit)?)
        .map_err(|error| invalid(format!("the file is not UTF-8 from byte {} on", error.utf8_error().valid_up_to())))
}

/// A file's content; InvalidData when it is larger than `limit`.
fn read_bytes(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(invalid(format!("the file is larger than {limit} bytes")));
    }
    Ok(bytes)
}

fn invalid(message: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, message)
}

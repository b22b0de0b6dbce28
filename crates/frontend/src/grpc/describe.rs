//! What the server and its models are, as messages.

use inference::{DataType, Error, IndexEntry, ModelInfo, ModelKey, ModelState, Result, Shape};
use protocol::grpc_service::model_metadata_response::TensorMetadata;
use protocol::grpc_service::repository_index_response::ModelIndex;
use protocol::grpc_service::{
    ModelConfigResponse, ModelMetadataResponse, RepositoryIndexResponse, ServerMetadataResponse,
};

use crate::App;
use crate::http::{extensions, shown_state};

pub(super) fn server(app: &App) -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: app.config.server_name.clone(),
        version: app.config.server_version.clone(),
        extensions: extensions(app).into_iter().map(str::to_owned).collect(),
    }
}

pub(super) fn model(key: &ModelKey, info: &ModelInfo) -> ModelMetadataResponse {
    let spec = &info.spec;
    let tensor = |name: &str, datatype: DataType, dims: &Shape| TensorMetadata {
        name: name.to_owned(),
        datatype: datatype.name().to_owned(),
        shape: spec.full_shape(dims).to_vec(),
    };
    let versions = if key.version.is_some() { std::slice::from_ref(&info.version) } else { &info.versions[..] };
    ModelMetadataResponse {
        name: key.to_string(),
        versions: versions.iter().map(u64::to_string).collect(),
        platform: spec.platform.clone(),
        inputs: spec.inputs.iter().map(|input| tensor(&input.name, input.datatype, &input.dims)).collect(),
        outputs: spec.outputs.iter().map(|output| tensor(&output.name, output.datatype, &output.dims)).collect(),
    }
}

pub(super) fn config(info: &ModelInfo) -> Result<ModelConfigResponse> {
    let config = protocol::decode_model_config(&info.config).map_err(|error| {
        Error::internal(format!("the configuration of model '{}' cannot be read back", info.spec.name))
            .with_source(error)
    })?;
    Ok(ModelConfigResponse { config: Some(config) })
}

pub(super) fn index(entries: Vec<IndexEntry>, only_ready: bool) -> RepositoryIndexResponse {
    let wanted = entries.into_iter().filter(|entry| !only_ready || entry.state == ModelState::Ready);
    let models = wanted.map(|entry| ModelIndex {
        version: entry.version.map_or_else(String::new, |version| version.to_string()),
        state: shown_state(&entry).unwrap_or_default().to_owned(),
        name: entry.name,
        reason: entry.reason,
    });
    RepositoryIndexResponse { models: models.collect() }
}

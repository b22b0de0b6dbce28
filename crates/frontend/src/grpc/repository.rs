//! Loading and unloading models by name, as messages.

use std::collections::BTreeMap;

use inference::{LoadOverrides, ModelControl, ModelKey, Result};
use protocol::grpc_service::model_repository_parameter::ParameterChoice;
use protocol::grpc_service::{ModelRepositoryParameter, RepositoryModelLoadRequest, RepositoryModelUnloadRequest};

use tonic::Status;

use super::failure;
use crate::load_parameters::{
    CONFIG, FILE, PIN, UNLOAD_DEPENDENTS, in_repository, unknown_load_parameter, unknown_unload_parameter, wrong_type,
};

/// # Errors
/// Unsupported when a repository is named.
pub(super) fn check_repository(name: &str) -> Result<()> {
    if name.is_empty() { Ok(()) } else { Err(in_repository()) }
}

/// Loads a model by name.
pub(super) async fn load(control: &dyn ModelControl, request: RepositoryModelLoadRequest) -> Result<(), Status> {
    let RepositoryModelLoadRequest { repository_name, model_name, parameters } = request;
    let key = ModelKey::of_model(model_name);
    let given = check_repository(&repository_name).and_then(|()| overrides(parameters));
    let loaded = match given {
        Ok(overrides) => control.load(&key, overrides).await,
        Err(error) => Err(error),
    };
    loaded.map_err(|error| failure::refuse(&key, error))
}

/// Unloads a model by name.
pub(super) async fn unload(control: &dyn ModelControl, request: RepositoryModelUnloadRequest) -> Result<(), Status> {
    let RepositoryModelUnloadRequest { repository_name, model_name, parameters } = request;
    let key = ModelKey::of_model(model_name);
    let given = check_repository(&repository_name).and_then(|()| unload_dependents(parameters));
    let unloaded = match given {
        Ok(with_dependents) => control.unload(&key, with_dependents).await,
        Err(error) => Err(error),
    };
    unloaded.map_err(|error| failure::refuse(&key, error))
}

/// # Errors
/// InvalidArgument for a parameter that is not known or of another type.
fn overrides(parameters: BTreeMap<String, ModelRepositoryParameter>) -> Result<LoadOverrides> {
    let mut overrides = LoadOverrides::default();
    for (name, value) in parameters {
        match (name.strip_prefix(FILE), value.parameter_choice) {
            (Some(path), Some(ParameterChoice::BytesParam(content))) => {
                overrides.files.insert(path.to_owned(), content);
            }
            (Some(_), other) => return Err(wrong_type(&name, "bytes", kind(other.as_ref()))),
            (None, Some(ParameterChoice::StringParam(config))) if name == CONFIG => overrides.config = Some(config),
            (None, other) if name == CONFIG => return Err(wrong_type(&name, "a string", kind(other.as_ref()))),
            (None, Some(ParameterChoice::BoolParam(pin))) if name == PIN => overrides.prefetch = !pin,
            (None, other) if name == PIN => return Err(wrong_type(&name, "a boolean", kind(other.as_ref()))),
            (None, _) => return Err(unknown_load_parameter(&name)),
        }
    }
    Ok(overrides)
}

/// # Errors
/// As [`overrides`].
fn unload_dependents(parameters: BTreeMap<String, ModelRepositoryParameter>) -> Result<bool> {
    let mut with_dependents = false;
    for (name, value) in parameters {
        match (name.as_str(), value.parameter_choice) {
            (UNLOAD_DEPENDENTS, Some(ParameterChoice::BoolParam(given))) => with_dependents = given,
            (UNLOAD_DEPENDENTS, other) => return Err(wrong_type(&name, "a boolean", kind(other.as_ref()))),
            _ => return Err(unknown_unload_parameter(&name)),
        }
    }
    Ok(with_dependents)
}

fn kind(value: Option<&ParameterChoice>) -> &'static str {
    match value {
        None => "nothing",
        Some(ParameterChoice::BoolParam(_)) => "a boolean",
        Some(ParameterChoice::Int64Param(_)) => "an integer",
        Some(ParameterChoice::StringParam(_)) => "a string",
        Some(ParameterChoice::BytesParam(_)) => "bytes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str, value: ParameterChoice) -> BTreeMap<String, ModelRepositoryParameter> {
        BTreeMap::from([(name.to_owned(), ModelRepositoryParameter { parameter_choice: Some(value) })])
    }

    #[test]
    fn parameters_are_checked() {
        let read = overrides(given("config", ParameterChoice::StringParam("{}".to_owned()))).expect("valid");
        assert_eq!(read.config.as_deref(), Some("{}"));
        let read = overrides(given("file:1/x", ParameterChoice::BytesParam(vec![1].into()))).expect("valid");
        assert_eq!(read.files["1/x"], [1][..]);
        assert!(unload_dependents(given("unload_dependents", ParameterChoice::BoolParam(true))).expect("valid"));
        for pin in [true, false] {
            let read = overrides(given("panoply_pin", ParameterChoice::BoolParam(pin))).expect("valid");
            assert_eq!(read.prefetch, !pin);
        }
        let wrong = [
            overrides(given("panoply_pin", ParameterChoice::Int64Param(1))).map(drop),
            overrides(given("config", ParameterChoice::Int64Param(1))).map(drop),
            overrides(given("file:1/x", ParameterChoice::StringParam("AQ==".to_owned()))).map(drop),
            overrides(given("other", ParameterChoice::BoolParam(true))).map(drop),
            unload_dependents(given("unload_dependents", ParameterChoice::Int64Param(1))).map(drop),
            unload_dependents(given("other", ParameterChoice::BoolParam(true))).map(drop),
        ];
        assert!(wrong.iter().all(Result::is_err), "{wrong:?}");
    }
}

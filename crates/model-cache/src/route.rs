//! From what a request names to the archive that serves it. Pure.

use inference::{Error, ModelKey, ModelName, Result, TargetModel};

/// A set of models that is loaded, pinned and evicted as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ArchiveKey {
    /// An archive of the model store.
    Target(TargetModel),
    /// A repository that a container platform registered under an opaque name.
    Registered(String),
    /// A model of the unpacked repositories.
    Model(ModelName),
}

impl ArchiveKey {
    /// What its models' names in metrics and statistics begin with; nothing for the start-up repositories'.
    pub(crate) fn name(&self) -> Option<String> {
        match self {
            ArchiveKey::Target(_) | ArchiveKey::Registered(_) => Some(self.to_string()),
            ArchiveKey::Model(_) => None,
        }
    }
}

/// As messages and metric labels name it.
impl std::fmt::Display for ArchiveKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ArchiveKey::Target(target) => write!(f, "{target}"),
            ArchiveKey::Registered(name) => f.write_str(name),
            ArchiveKey::Model(name) => f.write_str(name),
        }
    }
}

/// Where a request goes: an archive, and a model within it (its entry model when `None`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The archive.
    pub(crate) archive: ArchiveKey,
    /// The model within it.
    pub(crate) model: Option<ModelName>,
}

/// What names mean on this server.
#[derive(Clone, Copy)]
pub(crate) struct KnownNames<'a> {
    /// Whether there is a model store to ask.
    pub(crate) has_store: bool,
    /// Whether a platform registered this name.
    pub(crate) is_registered: &'a dyn Fn(&str) -> bool,
    /// Whether an unpacked repository has a model of this name.
    pub(crate) is_in_repository: &'a dyn Fn(&str) -> bool,
    /// The only model that is served without a target model, if there is exactly one.
    pub(crate) only_model: Option<&'a str>,
}

/// Resolves a key; see the table on [`ModelKey`].
///
/// # Errors
/// NotFound when the name means nothing here, InvalidArgument when there is no name and more than one model to mean.
pub(crate) fn route(key: &ModelKey, names: KnownNames<'_>) -> Result<Route> {
    if let Some(target) = &key.target {
        let entry_by_name = key.model.as_deref() == Some(target.as_str());
        let model = key.model.clone().filter(|_| !entry_by_name);
        return to_target(target.clone(), model, names);
    }
    let Some(model) = key.model.as_deref().or(names.only_model) else {
        return Err(Error::invalid_argument(
            "the request names no model; name an archive in the header 'X-Amzn-SageMaker-Target-Model'",
        ));
    };
    if (names.is_registered)(model) {
        return Ok(Route { archive: ArchiveKey::Registered(model.to_owned()), model: None });
    }
    if (names.is_in_repository)(model) {
        return Ok(Route { archive: ArchiveKey::Model(model.into()), model: Some(model.into()) });
    }
    match TargetModel::new(model) {
        Ok(target) if names.has_store => to_target(target, None, names),
        _ => Err(Error::not_found(format!("Request for unknown model: '{model}' is not found")).with_model(model)),
    }
}

fn to_target(target: TargetModel, model: Option<ModelName>, names: KnownNames<'_>) -> Result<Route> {
    if names.has_store {
        return Ok(Route { archive: ArchiveKey::Target(target), model });
    }
    Err(Error::not_found(format!(
        "Request for unknown model: '{target}' is not found: this server has no model store; start it with --model-store"
    ))
    .with_model(target.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(target: Option<&str>, model: Option<&str>, has_store: bool, only_model: Option<&str>) -> String {
        let key = ModelKey {
            target: target.map(|target| TargetModel::new(target).expect("valid")),
            model: model.map(Into::into),
            version: None,
        };
        let names = KnownNames {
            has_store,
            is_registered: &|name| name == "hash",
            is_in_repository: &|name| name == "resnet",
            only_model,
        };
        match route(&key, names) {
            Ok(Route { archive, model }) => format!("{archive:?}/{}", model.as_deref().unwrap_or("entry")),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_mean_what_the_table_says() {
        let target = |key: &str| format!("{:?}", ArchiveKey::Target(TargetModel::new(key).expect("valid")));
        let cases = [
            (resolve(Some("a.tar.gz"), None, true, None), format!("{}/entry", target("a.tar.gz"))),
            (resolve(Some("a.tar.gz"), Some("a.tar.gz"), true, None), format!("{}/entry", target("a.tar.gz"))),
            (resolve(Some("a.tar.gz"), Some("encoder"), true, None), format!("{}/encoder", target("a.tar.gz"))),
            (resolve(None, Some("t/a.tar.gz"), true, None), format!("{}/entry", target("t/a.tar.gz"))),
            (resolve(None, Some("hash"), true, None), "Registered(\"hash\")/entry".to_owned()),
            (resolve(None, Some("resnet"), true, None), "Model(\"resnet\")/resnet".to_owned()),
            (resolve(None, None, true, Some("resnet")), "Model(\"resnet\")/resnet".to_owned()),
            (resolve(None, Some("nope"), false, None), "Request for unknown model: 'nope' is not found".to_owned()),
        ];
        for (got, expected) in cases {
            assert_eq!(got, expected);
        }
        assert!(resolve(None, None, true, None).contains("names no model"));
        assert!(resolve(Some("a"), None, false, None).contains("--model-store"));
    }
}

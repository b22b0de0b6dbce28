//! What a request names: a target model (an archive), a model, a version.

use std::fmt;
use std::sync::Arc;

/// The name of a model inside its archive or repository; cheap to clone.
pub type ModelName = Arc<str>;

/// An archive's key below the store's prefix, suffix included: `team-a/ranker.tar.gz`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetModel(Arc<str>);

impl TargetModel {
    /// The longest key that S3 accepts, in bytes.
    pub const MAX_LENGTH: usize = 1024;

    /// A target model from its key.
    ///
    /// # Errors
    /// InvalidArgument when the key is empty, longer than [`TargetModel::MAX_LENGTH`], begins with `/`, has an empty,
    /// `.` or `..` segment, or holds a control character.
    pub fn new(key: &str) -> crate::Result<Self> {
        let refuse = |why: &str| {
            Err(crate::Error::invalid_argument(format!(
                "target model {key:?} {why}; name an archive by its key below the store's prefix, like 'team-a/ranker.tar.gz'"
            )))
        };
        if key.is_empty() {
            return refuse("is empty");
        }
        if key.len() > Self::MAX_LENGTH {
            return refuse(&format!("is longer than {} bytes", Self::MAX_LENGTH));
        }
        if key.chars().any(char::is_control) {
            return refuse("holds a control character");
        }
        if key.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return refuse("has an empty, '.' or '..' path segment");
        }
        Ok(TargetModel(Arc::from(key)))
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TargetModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which model a request is for.
///
/// | `target` | `model` | means |
/// | --- | --- | --- |
/// | some | none | the entry model of that archive |
/// | some | some | that model inside that archive |
/// | none | some | a model of an unpacked repository or a registered one; failing that, a target model of that name |
/// | none | none | the only model that is served, if there is just one |
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ModelKey {
    /// The archive, when the client named one.
    pub target: Option<TargetModel>,
    /// The model's name, when the client named one.
    pub model: Option<ModelName>,
    /// The version, when the client asked for one; otherwise the newest that is served.
    pub version: Option<u64>,
}

impl ModelKey {
    /// The entry model of an archive.
    pub fn of_target(target: TargetModel) -> Self {
        ModelKey { target: Some(target), model: None, version: None }
    }

    /// A model by its own name.
    pub fn of_model(model: impl Into<ModelName>) -> Self {
        ModelKey { target: None, model: Some(model.into()), version: None }
    }
}

/// What the client used as the model's name.
impl fmt::Display for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.target, &self.model) {
            (_, Some(model)) => f.write_str(model),
            (Some(target), None) => f.write_str(target.as_str()),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_models_may_have_folders_but_never_climb() {
        for good in ["a.tar.gz", "team-a/ranker.tar.gz", "ü/模型.tar.gz"] {
            assert_eq!(TargetModel::new(good).expect(good).as_str(), good);
        }
        for bad in ["", "/a", "a//b", "../a", "a/../b", "a/.", "a\nb", &"x".repeat(1025)] {
            assert!(TargetModel::new(bad).is_err(), "{bad:?}");
        }
    }
}

//! What a load by name uses instead of a model's own configuration and files, once it makes sense.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use inference::{Error, LoadOverrides, Result};
use repository::GivenFiles;

/// [`LoadOverrides`] that make sense; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Overrides {
    /// The model as it is.
    None,
    /// Its files with another configuration (as JSON).
    Config(Arc<str>),
    /// Nothing of it: a configuration and files.
    Files {
        /// The configuration, as JSON.
        config: Arc<str>,
        /// By path within the model's directory.
        files: Arc<BTreeMap<String, Bytes>>,
    },
}

impl Overrides {
    /// # Errors
    /// InvalidArgument, in Triton's words and ours, when there are files without a configuration.
    pub(crate) fn new(name: &str, given: LoadOverrides) -> Result<Self> {
        let LoadOverrides { config, files, prefetch } = given;
        if prefetch && (config.is_some() || !files.is_empty()) {
            return Err(Error::invalid_argument(format!(
                "'{name}' cannot be loaded with a configuration or files of the request and 'panoply_pin' false: what the store \
                 does not have stays in memory until it is unloaded"
            ))
            .with_model(name));
        }
        match config {
            None if files.is_empty() => Ok(Overrides::None),
            None => Err(Error::invalid_argument(format!(
                "failed to load '{name}', failed to poll from model repository: the model would consist of the given files \
                 alone, so the parameter 'config' must be given as well"
            ))
            .with_model(name)),
            Some(config) if files.is_empty() => Ok(Overrides::Config(config.into())),
            Some(config) => Ok(Overrides::Files { config: config.into(), files: Arc::new(files) }),
        }
    }
}

/// Writes the files that came with a request to load into a folder below `scratch`.
///
/// # Errors
/// As [`GivenFiles::write`].
pub(crate) async fn write_files(scratch: &Arc<PathBuf>, files: Arc<BTreeMap<String, Bytes>>) -> Result<GivenFiles> {
    let scratch = scratch.clone();
    let written = tokio::task::spawn_blocking(move || GivenFiles::write(&scratch, &files)).await;
    written.unwrap_or_else(|_| Err(Error::internal("writing the given files panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_need_a_configuration() {
        let overrides = |config: Option<&str>, files: &[&str]| {
            let files = files.iter().map(|path| ((*path).to_owned(), Bytes::new())).collect();
            Overrides::new("m", LoadOverrides { config: config.map(str::to_owned), files, prefetch: false })
        };
        assert!(matches!(overrides(None, &[]), Ok(Overrides::None)));
        assert!(matches!(overrides(Some("{}"), &[]), Ok(Overrides::Config(config)) if &*config == "{}"));
        assert!(matches!(overrides(Some("{}"), &["1/x"]), Ok(Overrides::Files { .. })));
        let error = overrides(None, &["1/x"]).expect_err("no configuration");
        assert!(error.message().starts_with("failed to load 'm', failed to poll from model repository"), "{error}");
    }
}

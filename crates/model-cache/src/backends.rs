//! The backends that are built in, by the name that configurations use.

use std::collections::BTreeMap;
use std::sync::Arc;

use inference::{Backend, Error, ModelSpec, Result};

/// The backends of this server.
#[derive(Clone, Default)]
pub struct Backends {
    started: BTreeMap<String, Arc<dyn Backend>>,
    failed: BTreeMap<String, Error>,
}

impl Backends {
    /// These backends, each under its own name.
    pub fn new(backends: impl IntoIterator<Item = Arc<dyn Backend>>) -> Self {
        backends.into_iter().fold(Backends::default(), Backends::with)
    }

    /// Adds a backend under its own name.
    #[must_use]
    pub fn with(mut self, backend: Arc<dyn Backend>) -> Self {
        self.started.insert(backend.name().to_owned(), backend);
        self
    }

    /// Notes that a backend is built in but did not start; its models get `error`.
    #[must_use]
    pub fn without(mut self, name: &str, error: Error) -> Self {
        self.failed.insert(name.to_owned(), error);
        self
    }

    /// The backend that a model's configuration names.
    ///
    /// # Errors
    /// Unsupported, with the list of those that are built in; or why the backend did not start.
    pub fn find(&self, spec: &ModelSpec) -> Result<&Arc<dyn Backend>> {
        if let Some(error) = self.failed.get(&spec.backend) {
            return Err(error.clone().context(format!("model '{}'", spec.name)).with_model(&*spec.name));
        }
        self.started.get(&spec.backend).ok_or_else(|| {
            let built_in: Vec<&str> = self.started.keys().map(String::as_str).chain([ModelSpec::ENSEMBLE]).collect();
            Error::unsupported(format!(
                "model '{}' needs backend '{}', which is not built in; built in are {built_in:?}",
                spec.name, spec.backend
            ))
            .with_model(&*spec.name)
        })
    }
}

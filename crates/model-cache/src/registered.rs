//! Models that come from no store: start-up repositories, and what a container platform registers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inference::{CacheTier, Error, ErrorKind, RegisteredModel, Result};
use parking_lot::RwLock;
use repository::{Repository, read_archive, read_folder};

use crate::archive_load::{ArchiveLoads, Source};
use crate::problems::Problems;
use crate::room::{Room, UnloadReason};
use crate::route::ArchiveKey;

/// The names that mean something without a store.
#[derive(Default)]
pub(crate) struct Names {
    /// A platform's opaque name → the URL that it gave. A name is here from the start of its load to the end of its
    /// unload, so that two loads of one name cannot overlap.
    registered: BTreeMap<String, String>,
    repository: BTreeSet<String>,
    /// The model that a request without a name means, when the repositories leave no doubt.
    repository_entry: Option<String>,
}

impl Names {
    pub(crate) fn is_registered(&self, name: &str) -> bool {
        self.registered.contains_key(name)
    }

    pub(crate) fn is_in_repository(&self, name: &str) -> bool {
        self.repository.contains(name)
    }

    /// The only model that a request without a name can mean.
    pub(crate) fn only_model(&self) -> Option<&str> {
        match (self.registered.len(), &self.repository_entry) {
            (0, entry) => entry.as_deref(),
            (1, None) if self.repository.is_empty() => self.registered.keys().next().map(String::as_str),
            _ => None,
        }
    }
}

/// Loads and unloads what is registered.
pub(crate) struct Registrations {
    names: RwLock<Names>,
    loads: Arc<ArchiveLoads>,
    room: Arc<Room>,
}

impl Registrations {
    pub(crate) fn new(loads: Arc<ArchiveLoads>, room: Arc<Room>) -> Self {
        Registrations { names: RwLock::default(), loads, room }
    }

    /// Looks at the names.
    pub(crate) fn with_names<T>(&self, look: impl FnOnce(&Names) -> T) -> T {
        look(&self.names.read())
    }

    /// Loads the start-up repositories as one namespace, and keeps them.
    ///
    /// # Errors
    /// Everything that is wrong with any of them; two models of one name.
    pub(crate) async fn load_repositories(&self, folders: Vec<PathBuf>) -> Result<()> {
        if folders.is_empty() {
            return Ok(());
        }
        let read = Box::new(move || merge(&folders));
        let source = source(ArchiveKey::Repositories, read);
        let pin = self.loads.load(source).await?;
        let mut names = self.names.write();
        names.repository = pin.models.keys().map(ToString::to_string).collect();
        names.repository_entry = pin.entry.as_deref().map(str::to_owned);
        Ok(())
    }

    /// See [`inference::ModelControl::register`].
    pub(crate) async fn register(&self, name: &str, directory: &Path) -> Result<()> {
        if !directory.is_dir() {
            let message = format!("failed to register '{}', repository not found", directory.display());
            return Err(Error::not_found(message).with_model(name));
        }
        let url = directory.display().to_string();
        if self.names.write().registered.insert(name.to_owned(), url.clone()).is_some() {
            let message = format!("model repository '{url}' has already been registered as '{name}'");
            return Err(Error::new(ErrorKind::AlreadyExists, message).with_model(name));
        }
        let (folder, model) = (directory.to_owned(), name.to_owned());
        let read = Box::new(move || read_archive(&folder, &model));
        let loaded = self.loads.load(source(ArchiveKey::Registered(name.to_owned()), read)).await;
        if loaded.is_err() {
            self.names.write().registered.remove(name);
        }
        loaded.map(drop)
    }

    /// See [`inference::ModelControl::unregister`].
    pub(crate) async fn unregister(&self, name: &str) -> Result<()> {
        let key = ArchiveKey::Registered(name.to_owned());
        if !self.room.remove(&key, UnloadReason::Request).await {
            return Err(Error::not_found(format!("Request for unknown model: '{name}' is not found")).with_model(name));
        }
        self.names.write().registered.remove(name);
        Ok(())
    }

    /// See [`inference::ModelControl::registered`].
    pub(crate) fn list(&self) -> Vec<RegisteredModel> {
        let names = self.names.read();
        names.registered.iter().map(|(name, url)| RegisteredModel { name: name.clone(), url: url.clone() }).collect()
    }
}

fn source(key: ArchiveKey, read: Box<dyn FnOnce() -> Result<Repository> + Send>) -> Source {
    Source { key, version: "".into(), tier: CacheTier::Disk, read, files: None, kept: true }
}

/// Reads several repositories as one. The entry is the only model, or the only ensemble.
fn merge(folders: &[PathBuf]) -> Result<Repository> {
    let mut problems = Problems::default();
    let mut models: Vec<repository::RepositoryModel> = Vec::new();
    for folder in folders {
        let Some(repository) = problems.note(read_folder(folder)) else { continue };
        for model in repository.models {
            match models.iter().find(|other| other.spec.name == model.spec.name) {
                Some(other) => problems.add(Error::invalid_argument(format!(
                    "model '{}' is in two repositories: {} and {}",
                    model.spec.name,
                    other.directory.display(),
                    model.directory.display()
                ))),
                None => models.push(model),
            }
        }
    }
    problems.into_result()?;
    let entry = match models.as_slice() {
        [only] => Some(only.spec.name.clone()),
        _ => None,
    };
    Ok(Repository { entry, models })
}

//! Models that a container platform registers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inference::{CacheTier, Error, ErrorKind, RegisteredModel, Result};
use parking_lot::RwLock;
use repository::{Repository, read_archive};
use tokio::task::JoinHandle;

use crate::archive_load::{ArchiveLoads, Source};
use crate::loaded::Files;
use crate::room::{Room, UnloadReason};
use crate::route::ArchiveKey;

/// A model that a platform registered.
struct Registered {
    /// Where its files are, as the platform said it.
    url: String,
    /// Its load is over and its unload has not begun.
    is_loaded: bool,
}

/// The names that a platform gave.
#[derive(Default)]
pub(crate) struct Names {
    /// By a platform's opaque name. A name is here from the start of its load to the end of its unload, so that two loads
    /// of one name cannot overlap.
    registered: BTreeMap<String, Registered>,
}

impl Names {
    pub(crate) fn is_registered(&self, name: &str) -> bool {
        self.registered.get(name).is_some_and(|model| model.is_loaded)
    }

    /// The only model that a request without a name can mean; the repositories have so many models, and perhaps one only.
    pub(crate) fn only_model<'a>(&'a self, in_repositories: usize, only: Option<&'a str>) -> Option<&'a str> {
        match (self.registered.len(), in_repositories) {
            (0, 1) => only,
            (1, 0) => self.registered.keys().next().map(String::as_str),
            _ => None,
        }
    }
}

/// Loads and unloads what is registered.
#[derive(Clone)]
pub(crate) struct Registrations {
    names: Arc<RwLock<Names>>,
    loads: Arc<ArchiveLoads>,
    room: Arc<Room>,
}

impl Registrations {
    pub(crate) fn new(loads: Arc<ArchiveLoads>, room: Arc<Room>) -> Self {
        Registrations { names: Arc::default(), loads, room }
    }

    /// Looks at the names.
    pub(crate) fn with_names<T>(&self, look: impl FnOnce(&Names) -> T) -> T {
        look(&self.names.read())
    }

    /// See [`inference::ModelControl::register`]. Goes on when the caller goes away: a platform that gave up waiting asks
    /// again, and must find the model either loaded or unknown.
    pub(crate) async fn register(&self, name: &str, directory: &Path) -> Result<()> {
        let (this, name, directory) = (self.clone(), name.to_owned(), directory.to_owned());
        finish(tokio::spawn(async move { this.load(&name, directory).await })).await
    }

    async fn load(&self, name: &str, directory: PathBuf) -> Result<()> {
        if !tokio::fs::metadata(&directory).await.is_ok_and(|metadata| metadata.is_dir()) {
            let message = format!("failed to register '{}', repository not found", directory.display());
            return Err(Error::not_found(message).with_model(name));
        }
        self.take_name(name, directory.display().to_string())?;
        let model = name.to_owned();
        let read = Box::new(move || read_archive(&directory, &model));
        let loaded = self.loads.load(source(ArchiveKey::Registered(name.to_owned()), read)).await;
        let mut names = self.names.write();
        match &loaded {
            Ok(_) => names.registered.get_mut(name).into_iter().for_each(|model| model.is_loaded = true),
            Err(_) => drop(names.registered.remove(name)),
        }
        loaded.map(drop)
    }

    fn take_name(&self, name: &str, url: String) -> Result<()> {
        match self.names.write().registered.entry(name.to_owned()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Registered { url, is_loaded: false });
                Ok(())
            }
            Entry::Occupied(taken) => {
                let message = format!("model '{name}' has already been registered, from '{}'", taken.get().url);
                Err(Error::new(ErrorKind::AlreadyExists, message).with_model(name))
            }
        }
    }

    /// See [`inference::ModelControl::unregister`]. Goes on when the caller goes away.
    pub(crate) async fn unregister(&self, name: &str) -> Result<()> {
        let (this, name) = (self.clone(), name.to_owned());
        finish(tokio::spawn(async move { this.unload(&name).await })).await
    }

    async fn unload(&self, name: &str) -> Result<()> {
        let is_known = match self.names.write().registered.get_mut(name) {
            Some(model) => std::mem::replace(&mut model.is_loaded, false),
            None => false,
        };
        if !is_known {
            return Err(Error::not_found(format!("Request for unknown model: '{name}' is not found")).with_model(name));
        }
        self.room.remove(&ArchiveKey::Registered(name.to_owned()), UnloadReason::Request).await;
        self.names.write().registered.remove(name);
        Ok(())
    }

    /// See [`inference::ModelControl::registered`].
    pub(crate) fn list(&self) -> Vec<RegisteredModel> {
        let names = self.names.read();
        let loaded = names.registered.iter().filter(|(_, model)| model.is_loaded);
        loaded.map(|(name, model)| RegisteredModel { name: name.clone(), url: model.url.clone() }).collect()
    }
}

async fn finish(task: JoinHandle<Result<()>>) -> Result<()> {
    task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn source(key: ArchiveKey, read: Box<dyn FnOnce() -> Result<Repository> + Send>) -> Source {
    Source {
        key,
        version: "".into(),
        tier: CacheTier::Disk,
        read,
        files: Files::Foreign,
        members: Vec::new(),
        kept: true,
        urgency: None,
        overdue: Arc::default(),
    }
}

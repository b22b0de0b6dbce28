//! What front ends ask about models and tell the server to do with them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use inference::{
    BoxFuture, Description, Error, ErrorKind, IndexEntry, LoadOverrides, ModelControl, ModelKey, ModelState,
    ModelStatistics, RegisteredModel, Result, TargetModel, Trace,
};

use crate::cache::ModelCache;
use crate::loaded::LoadedArchive;
use crate::overrides::Overrides;
use crate::route::{ArchiveKey, Route};
use crate::target_control::ByName;

impl ModelControl for ModelCache {
    fn is_server_ready(&self) -> bool {
        self.is_accepting()
    }

    fn is_model_ready(&self, key: &ModelKey) -> bool {
        let Ok(route) = self.route(key) else { return false };
        self.room.read(|residency| {
            let archive = residency.peek(&route.archive);
            archive.is_some_and(|archive| archive.find(route.model.as_deref(), key.version).is_ok())
        })
    }

    fn is_decoupled(&self, key: &ModelKey) -> Option<bool> {
        let route = self.route(key).ok()?;
        self.room.read(|residency| {
            let archive = residency.peek(&route.archive)?;
            Some(archive.find(route.model.as_deref(), key.version).ok()?.info.spec.decoupled)
        })
    }

    fn version_in_memory(&self, key: &ModelKey) -> Option<Arc<str>> {
        let archive = self.route(key).ok()?.archive;
        let is_target = matches!(archive, ArchiveKey::Target(_));
        self.room.read(|residency| Some(residency.peek(&archive)?.version.clone())).filter(|_| is_target)
    }

    fn describe(
        &self,
        key: &ModelKey,
        deadline: Option<Instant>,
        trace: Option<Trace>,
    ) -> BoxFuture<'_, Result<Description>> {
        let key = key.clone();
        Box::pin(async move {
            let described = match self.route(&key) {
                Ok(route) => self.describe_at(route, &key, deadline, trace.as_ref()).await,
                Err(error) => Err(error),
            };
            match described {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotReady) => {
                    match self.composing_model(&key) {
                        Some(route) => self.describe_at(route, &key, deadline, trace.as_ref()).await,
                        None => Err(error),
                    }
                }
                described => described,
            }
        })
    }

    fn statistics(&self, key: &ModelKey) -> Result<Vec<ModelStatistics>> {
        self.statistics_of(key)
    }

    fn index(&self) -> BoxFuture<'_, Vec<IndexEntry>> {
        let mut index = BTreeMap::new();
        self.index_targets(&mut index);
        self.room.read(|residency| {
            let is_own = |key: &&ArchiveKey| !matches!(key, ArchiveKey::Model(_));
            for key in residency.unloading().filter(is_own) {
                put(&mut index, key.to_string(), None, ModelState::Unloading, "");
            }
            residency.iter().for_each(|archive| index_archive(&mut index, archive, &self.outdated(archive)));
        });
        Box::pin(async move {
            let mut index: Vec<IndexEntry> = index.into_values().collect();
            index.extend(self.repositories.index().await);
            index.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
            index
        })
    }

    fn load<'a>(&'a self, key: &'a ModelKey, overrides: LoadOverrides) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let name = key.to_string();
            let is_kept = !overrides.prefetch;
            let overrides = Overrides::new(&name, overrides)?;
            let how = ByName { overrides, is_kept };
            self.load_by_name(key, how).await.map_err(|error| load_failed(&name, error))
        })
    }

    fn unload<'a>(&'a self, key: &'a ModelKey, unload_dependents: bool) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.unload_by_name(key, unload_dependents))
    }

    fn register<'a>(&'a self, name: &'a str, directory: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.registrations.register(name, directory))
    }

    fn unregister<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.registrations.unregister(name))
    }

    fn is_registered(&self, name: &str) -> bool {
        self.registrations.with_names(|names| names.is_registered(name))
    }

    fn registered(&self) -> Vec<RegisteredModel> {
        self.registrations.list()
    }
}

/// A load by name that failed, as Triton's clients know it: what keeps it from being loaded now stays what it is.
fn load_failed(name: &str, error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => {
            let message = format!("failed to load '{name}', failed to poll from model repository");
            Error::not_found(message).with_source(error).with_model(name)
        }
        ErrorKind::InvalidArgument | ErrorKind::AlreadyExists | ErrorKind::Unsupported | ErrorKind::Internal => {
            let said =
                ["load failed for model", "failed to load"].iter().any(|start| error.message().starts_with(start));
            let message = match said {
                true => error.message().to_owned(),
                false => format!("load failed for model '{name}': {}", error.message()),
            };
            Error::invalid_argument(message).with_source(error).with_model(name)
        }
        _ => error,
    }
}

/// Entries by name and version, so that a later, truer state replaces an earlier one.
type Index = BTreeMap<(String, Option<u64>), IndexEntry>;

fn put(index: &mut Index, name: String, version: Option<u64>, state: ModelState, reason: &str) {
    let entry = IndexEntry { name: name.clone(), version, state, reason: reason.to_owned(), gpus: Vec::new() };
    index.insert((name, version), entry);
}

fn index_archive(index: &mut Index, archive: &LoadedArchive, reason: &str) {
    if matches!(archive.key, ArchiveKey::Model(_)) {
        return;
    }
    let name = archive.key.to_string();
    index.remove(&(name.clone(), None));
    let entry = archive.entry.iter().filter_map(|entry| archive.models.get(entry));
    for version in entry.flat_map(|versions| versions.keys()) {
        put(index, name.clone(), Some(*version), ModelState::Ready, reason);
        index.entry((name.clone(), Some(*version))).and_modify(|entry| entry.gpus = archive.gpus());
    }
}

impl ModelCache {
    async fn describe_at(
        &self,
        route: Route,
        key: &ModelKey,
        deadline: Option<Instant>,
        trace: Option<&Trace>,
    ) -> Result<Description> {
        let (pin, cache) = self.acquire(&route, deadline, trace).await?;
        let found = pin.find(route.model.as_deref(), key.version).map_err(|error| pin.blame(error))?;
        let model = found.info.clone();
        Ok(Description { model, cache })
    }

    async fn load_by_name(&self, key: &ModelKey, how: ByName) -> Result<()> {
        match self.owner(key).await? {
            Owner::Target(target) => {
                let targets =
                    self.targets.as_ref().ok_or_else(|| Error::not_found("this server has no model store"))?;
                targets.load_by_name(&self.flights, &target, how).await
            }
            Owner::Repositories(name) if !how.is_kept => {
                let message = format!(
                    "the parameter 'panoply_pin' is about target models; '{name}' is a repository's model, which stays"
                );
                Err(Error::invalid_argument(message).with_model(name))
            }
            Owner::Repositories(name) => self.repositories.load(&name, how.overrides).await,
        }
    }

    async fn unload_by_name(&self, key: &ModelKey, unload_dependents: bool) -> Result<()> {
        match self.owner(key).await? {
            Owner::Target(target) => {
                self.targets.iter().for_each(|targets| targets.unload_by_name(&target));
                Ok(())
            }
            Owner::Repositories(name) => self.repositories.unload(&name, unload_dependents).await,
        }
    }

    /// Who loads and unloads what a key names.
    async fn owner(&self, key: &ModelKey) -> Result<Owner> {
        if let Some(target) = &key.target {
            return Ok(Owner::Target(target.clone()));
        }
        let name = key.model.as_deref().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Error::invalid_argument("the request names no model"))?;
        if self.is_registered(name) {
            let message = format!(
                "model '{name}' was registered by a container platform, which loads and unloads it (POST and DELETE /models)"
            );
            return Err(Error::unavailable(message).with_model(name));
        }
        let is_elsewhere = self.targets.is_none() || self.repositories.finds(name).await;
        match TargetModel::new(name) {
            Ok(target) if !is_elsewhere => Ok(Owner::Target(target)),
            _ => Ok(Owner::Repositories(name.to_owned())),
        }
    }

    /// Why an archive in memory is not the store's newest version; empty where nothing is known of a newer one.
    fn outdated(&self, archive: &LoadedArchive) -> String {
        let refresh = self.refresh.as_ref().zip(archive.of_store());
        refresh.and_then(|(refresh, (target, _))| refresh.outdated(target)).unwrap_or_default()
    }

    fn index_targets(&self, index: &mut Index) {
        let Some(targets) = &self.targets else { return };
        for target in targets.on_disk() {
            put(index, target.to_string(), None, ModelState::Unavailable, "on disk, not in memory");
        }
        for (target, error) in targets.refused() {
            put(index, target.to_string(), None, ModelState::Unavailable, error.message());
        }
        for target in self.flights.targets() {
            put(index, target.to_string(), None, ModelState::Loading, "");
        }
    }
}

/// Who loads and unloads a model.
enum Owner {
    Target(TargetModel),
    Repositories(String),
}

//! What front ends ask about models and tell the server to do with them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use inference::{
    BoxFuture, Description, ErrorKind, IndexEntry, ModelControl, ModelKey, ModelState, ModelStatistics,
    RegisteredModel, Result,
};

use crate::cache::ModelCache;
use crate::loaded::LoadedArchive;
use crate::route::{ArchiveKey, Route};

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

    fn describe(&self, key: &ModelKey, deadline: Option<Instant>) -> BoxFuture<'_, Result<Description>> {
        let key = key.clone();
        Box::pin(async move {
            let described = match self.route(&key) {
                Ok(route) => self.describe_at(route, &key, deadline).await,
                Err(error) => Err(error),
            };
            match described {
                Err(error) if error.kind() == ErrorKind::NotFound => match self.composing_model(&key) {
                    Some(route) => self.describe_at(route, &key, deadline).await,
                    None => Err(error),
                },
                described => described,
            }
        })
    }

    fn statistics(&self, key: &ModelKey) -> Result<Vec<ModelStatistics>> {
        self.statistics_of(key)
    }

    fn index(&self) -> Vec<IndexEntry> {
        let mut index = BTreeMap::new();
        self.index_targets(&mut index);
        self.room.read(|residency| {
            for key in residency.unloading() {
                put(&mut index, key.to_string(), None, ModelState::Unloading, "");
            }
            residency.iter().for_each(|archive| index_archive(&mut index, archive));
        });
        index.into_values().collect()
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

/// Entries by name and version, so that a later, truer state replaces an earlier one.
type Index = BTreeMap<(String, Option<u64>), IndexEntry>;

fn put(index: &mut Index, name: String, version: Option<u64>, state: ModelState, reason: &str) {
    let entry = IndexEntry { name: name.clone(), version, state, reason: reason.to_owned() };
    index.insert((name, version), entry);
}

fn index_archive(index: &mut Index, archive: &LoadedArchive) {
    let entry = match &archive.key {
        ArchiveKey::Repositories => None,
        ArchiveKey::Target(_) | ArchiveKey::Registered(_) => Some(archive.key.to_string()),
    };
    if let Some(name) = &entry {
        index.remove(&(name.clone(), None));
    }
    for (model, versions) in &archive.models {
        let name = match &entry {
            None => model.to_string(),
            Some(name) if archive.entry.as_ref() == Some(model) => name.clone(),
            Some(_) => continue,
        };
        versions.keys().for_each(|version| put(index, name.clone(), Some(*version), ModelState::Ready, ""));
    }
}

impl ModelCache {
    async fn describe_at(&self, route: Route, key: &ModelKey, deadline: Option<Instant>) -> Result<Description> {
        let (pin, cache) = self.acquire(&route, deadline, None).await?;
        let model = pin.find(route.model.as_deref(), key.version)?.info.clone();
        Ok(Description { model, cache })
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

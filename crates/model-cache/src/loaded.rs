//! An archive in memory, and the pins that keep it there.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use inference::{
    CacheOutcome, CacheTier, Device, Error, Growth, InferenceService, MemoryUsage, ModelInfo, ModelName, Result,
    TargetModel,
};
use repository::{CachedArchive, GivenFiles};
use scheduler::Tally;

use crate::room_signal::RoomSignal;
use crate::route::ArchiveKey;

/// One version of a model, ready to answer.
#[derive(Clone)]
pub(crate) struct ServedModel {
    /// What it is.
    pub(crate) info: Arc<ModelInfo>,
    /// What answers.
    pub(crate) service: Arc<dyn InferenceService>,
    /// What it has done.
    pub(crate) tally: Arc<Tally>,
    /// What it takes by itself, without the models that it is composed of.
    pub(crate) memory: MemoryUsage,
    /// How it grows and shrinks with its use, where it does.
    pub(crate) growth: Option<Arc<dyn Growth>>,
}

/// The models of an archive by name, each with its versions in ascending order.
pub(crate) type ServedModels = BTreeMap<ModelName, BTreeMap<u64, ServedModel>>;

/// The version asked for, or the newest.
pub(crate) fn find_version(versions: &BTreeMap<u64, ServedModel>, version: Option<u64>) -> Option<&ServedModel> {
    match version {
        Some(version) => versions.get(&version),
        None => versions.last_key_value().map(|(_, model)| model),
    }
}

/// Where an archive could be instead of where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// All that is on GPUs could be on the host.
    pub(crate) on_host: bool,
    /// Something that is on the host could be on a GPU, where that was not tried.
    pub(crate) on_gpu: bool,
}

/// All models of one archive. They are loaded, pinned and evicted together, and dropping this unloads them.
pub(crate) struct LoadedArchive {
    /// Which archive.
    pub(crate) key: ArchiveKey,
    /// The ETag that it was loaded from; empty for what comes from no store.
    pub(crate) version: Arc<str>,
    /// What it takes on each device, in bytes.
    pub(crate) usage: MemoryUsage,
    /// How long loading took, waits excluded.
    pub(crate) took: Duration,
    /// Where else it could be.
    pub(crate) elsewhere: Elsewhere,
    /// The models.
    pub(crate) models: ServedModels,
    /// The model that a request reaches that names none.
    pub(crate) entry: Option<ModelName>,
    /// Keeps the files on disk for as long as the models are in memory: they may be mapped.
    pub(crate) files: Files,
    /// What its ensembles are composed of besides its own models: pinned for as long as they may run.
    pub(crate) members: Vec<Pin>,
}

/// What keeps the files of loaded models where they are.
#[derive(Default)]
pub(crate) enum Files {
    /// They are someone else's.
    #[default]
    Foreign,
    /// The disk cache has them, and keeps them while this exists.
    Cached(CachedArchive),
    /// They came with a request to load, and go when this is dropped.
    Given(#[expect(dead_code, reason = "held, never read")] Arc<GivenFiles>),
}

impl Files {
    /// Whether nobody changes them while the models are in memory.
    pub(crate) fn are_immutable(&self) -> bool {
        !matches!(self, Files::Foreign)
    }

    /// Whether unloading the models would let the disk cache delete them.
    pub(crate) fn are_cached(&self) -> bool {
        self.cached().is_some()
    }

    /// The files in the disk cache, if they are there.
    pub(crate) fn cached(&self) -> Option<&CachedArchive> {
        match self {
            Files::Cached(archive) => Some(archive),
            Files::Foreign | Files::Given(_) => None,
        }
    }
}

impl LoadedArchive {
    /// Whether clients call this model by the archive's key: it is the entry model, and the archive has a key.
    pub(crate) fn is_called_by_its_key(&self, model: &ModelName) -> bool {
        !matches!(self.key, ArchiveKey::Model(_)) && self.entry.as_ref() == Some(model)
    }

    /// The model (the entry model when `None`) in the version asked for (the newest when `None`).
    ///
    /// # Errors
    /// NotFound, naming the models that there are.
    pub(crate) fn find(&self, model: Option<&str>, version: Option<u64>) -> Result<&ServedModel> {
        let name = model.or(self.entry.as_deref()).ok_or_else(|| self.no_entry())?;
        let Some(versions) = self.models.get(name) else {
            let known: Vec<&str> = self.models.keys().map(|name| &**name).collect();
            let message = format!("Request for unknown model: '{name}' is not found; {} has {known:?}", self.key);
            return Err(Error::not_found(message).with_model(name));
        };
        find_version(versions, version).ok_or_else(|| self.no_version(name, version, versions))
    }

    /// Those of its models that grow and shrink with their use.
    pub(crate) fn growths(&self) -> impl Iterator<Item = &Arc<dyn Growth>> {
        self.models.values().flat_map(BTreeMap::values).filter_map(|model| model.growth.as_ref())
    }

    /// What unloading it frees: what it was loaded with, and what its models have grown by.
    pub(crate) fn usage_now(&self) -> MemoryUsage {
        let mut usage = self.usage.clone();
        self.growths().for_each(|growth| usage.add_all(&growth.held()));
        usage
    }

    /// The ordinals of the GPUs that it holds memory of.
    pub(crate) fn gpus(&self) -> Vec<u32> {
        let ordinal = |(device, _)| match device {
            Device::Gpu(ordinal) => Some(ordinal),
            Device::Host => None,
        };
        let mut gpus: Vec<u32> = self.usage.iter().filter_map(ordinal).collect();
        gpus.sort_unstable();
        gpus
    }

    /// Whether it holds memory of a GPU.
    pub(crate) fn is_on_gpu(&self) -> bool {
        self.usage.iter().any(|(device, _)| device != Device::Host)
    }

    /// The target model that this is one of the store's versions of, and the files of that version.
    pub(crate) fn of_store(&self) -> Option<(&TargetModel, &CachedArchive)> {
        let ArchiveKey::Target(target) = &self.key else { return None };
        let files = self.files.cached().filter(|files| *files.etag() == self.version)?;
        Some((target, files))
    }

    /// An error that these models ended in: it says which version they are, where they have one.
    pub(crate) fn blame(&self, error: Error) -> Error {
        match &self.key {
            ArchiveKey::Target(_) => error.with_version(&self.version),
            _ => error,
        }
    }

    /// Whether a model holds something between requests (see [`InferenceService::is_busy`]).
    pub(crate) fn is_busy(&self) -> bool {
        self.models.values().flat_map(BTreeMap::values).any(|model| model.service.is_busy())
    }

    fn no_entry(&self) -> Error {
        let known: Vec<&str> = self.models.keys().map(|name| &**name).collect();
        Error::invalid_argument(format!("{} has no entry model; name one of {known:?}", self.key))
    }

    fn no_version(&self, name: &str, version: Option<u64>, versions: &BTreeMap<u64, ServedModel>) -> Error {
        let message = match version {
            Some(version) => {
                let known: Vec<u64> = versions.keys().copied().collect();
                format!("Request for unknown model: '{name}' version {version} is not found; it has versions {known:?}")
            }
            None => format!("Request for unknown model: '{name}' has no available versions"),
        };
        Error::not_found(message).with_model(name)
    }
}

/// A live handle on a loaded archive: as long as one exists the archive stays in memory. Dropping it releases.
#[derive(Clone)]
pub(crate) struct Pin {
    // `Some` until dropped; the archive must be let go before waiters for room are told.
    archive: Option<Arc<LoadedArchive>>,
    signal: Arc<RoomSignal>,
}

impl Pin {
    pub(crate) fn new(archive: Arc<LoadedArchive>, signal: Arc<RoomSignal>) -> Self {
        Pin { archive: Some(archive), signal }
    }

    /// It was in memory already.
    pub(crate) fn into_landing(self) -> (Self, CacheOutcome) {
        let version = self.version.clone();
        (self, CacheOutcome { tier: CacheTier::Memory, version, load: None })
    }

    /// Whether this is a handle on that very archive.
    pub(crate) fn is(&self, archive: &Arc<LoadedArchive>) -> bool {
        self.archive.as_ref().is_some_and(|pinned| Arc::ptr_eq(pinned, archive))
    }
}

impl Deref for Pin {
    type Target = LoadedArchive;

    fn deref(&self) -> &LoadedArchive {
        self.archive.as_ref().expect("invariant: taken only when dropped")
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.archive.take();
        self.signal.raise();
    }
}

//! The models of unpacked repositories: which are served, and how they are loaded and unloaded, by Triton's model control
//! modes. Each model is a unit of its own; an ensemble pins the models that it is composed of.

mod lines;
mod look;
mod plan;
mod record;
mod update;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use inference::{Error, ErrorKind, IndexEntry, ModelName, Result};
use parking_lot::RwLock;

use self::lines::{Known, lines};
use self::record::Records;
use crate::archive_load::ArchiveLoads;
use crate::config::{InitialModels, ModelCacheConfig, ModelControlMode, RepositoryConfig};
use crate::loaded::Pin;
use crate::overrides::{Overrides, write_files};
use crate::problems::Problems;
use crate::residency::Residency;
use crate::room::Room;
use crate::route::ArchiveKey;

/// The models of unpacked repositories.
pub(crate) struct Repositories {
    config: RepositoryConfig,
    records: RwLock<Records>,
    /// Held for an update, so that one at a time decides.
    turn: tokio::sync::Mutex<()>,
    loads: Arc<ArchiveLoads>,
    room: Arc<Room>,
    scratch: Arc<PathBuf>,
    /// Nobody waits longer than this for one load.
    longest: Duration,
}

impl Repositories {
    pub(crate) fn new(config: &ModelCacheConfig, loads: Arc<ArchiveLoads>, room: Arc<Room>) -> Arc<Self> {
        Arc::new(Repositories {
            config: config.repositories.clone(),
            records: RwLock::default(),
            turn: tokio::sync::Mutex::new(()),
            loads,
            room,
            scratch: config.scratch.clone().into(),
            longest: config.load_timeout + config.room_timeout,
        })
    }

    /// Loads what the mode wants loaded at start.
    ///
    /// # Errors
    /// All that is wrong with any model; what could be loaded serves all the same.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<()> {
        let _turn = self.turn.lock().await;
        let mut problems = Problems::default();
        self.rescan().await.into_iter().for_each(|error| problems.add(error));
        let wanted = self.initial(&mut problems);
        {
            let mut records = self.records.write();
            for name in &wanted {
                let record = records.0.entry(name.clone()).or_default();
                (record.wanted, record.due, record.explicit) = (true, true, self.is_explicit());
            }
        }
        self.update().await;
        let records = self.records.read();
        let failures = records.0.values().filter_map(|record| record.failure.clone());
        failures.for_each(|failure| problems.add(failure));
        problems.into_result()
    }

    fn initial(&self, problems: &mut Problems) -> Vec<ModelName> {
        let records = self.records.read();
        match &self.config.control {
            ModelControlMode::Explicit(InitialModels::Named(names)) => {
                let known = |name: &&String| {
                    let is_known = records.0.contains_key(name.as_str());
                    if !is_known {
                        problems.add(unknown(name));
                    }
                    is_known
                };
                names.iter().filter(known).map(|name| name.as_str().into()).collect()
            }
            _ => records.0.keys().cloned().collect(),
        }
    }

    /// Looks for changes from time to time, where the mode is to poll; never ends then.
    pub(crate) async fn poll_forever(self: Arc<Self>) {
        let ModelControlMode::Poll(interval) = self.config.control else { return };
        loop {
            tokio::time::sleep(interval).await;
            self.poll().await;
        }
    }

    async fn poll(self: &Arc<Self>) {
        let _turn = self.turn.lock().await;
        for error in self.rescan().await {
            tracing::warn!("a model repository cannot be looked at; its models stay as they are: {error:#}");
        }
        for record in self.records.write().0.values_mut() {
            record.wanted = record.place.is_some();
            record.due = record.wanted;
        }
        self.update().await;
    }

    /// Loads a model by name. Goes on when the caller goes away.
    ///
    /// # Errors
    /// See [`inference::ModelControl::load`].
    pub(crate) async fn load(self: &Arc<Self>, name: &str, overrides: Overrides) -> Result<()> {
        self.check_mode()?;
        let (this, model) = (self.clone(), ModelName::from(name));
        let loading = tokio::spawn(async move { this.load_now(&model, overrides).await });
        match tokio::time::timeout(self.longest, loading).await {
            Ok(loaded) => loaded.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
            Err(_) => Err(late(name)),
        }
    }

    async fn load_now(self: &Arc<Self>, name: &ModelName, overrides: Overrides) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.rescan().await;
        let is_loaded = self.is_loaded(name);
        let (config, given) = match overrides {
            Overrides::None => (None, None),
            Overrides::Config(config) => (Some(config), None),
            Overrides::Files { config, files } => {
                (Some(config), Some(Arc::new(write_files(&self.scratch, files).await?)))
            }
        };
        let before = {
            let mut records = self.records.write();
            if given.is_none() && !records.0.contains_key(name) {
                return Err(unknown(name));
            }
            let record = records.0.entry(name.clone()).or_default();
            if record.loading {
                return Err(late(name));
            }
            let before = record.replace_overrides(config, given);
            if !is_loaded || record.failure.is_some() {
                record.tried = None;
            }
            (record.wanted, record.due, record.explicit) = (true, true, true);
            before
        };
        self.update().await;
        let mut records = self.records.write();
        let record = records.0.get_mut(name).ok_or_else(|| unknown(name))?;
        if record.loading {
            return Err(late(name));
        }
        let failure = record.failure.clone();
        if failure.is_some() {
            // What serves, if anything does, is what was loaded before.
            (record.config, record.given) = before;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Unloads a model by name, and with `dependents` what was loaded for it alone.
    ///
    /// # Errors
    /// Unavailable where the mode does not allow it.
    pub(crate) async fn unload(self: &Arc<Self>, name: &str, dependents: bool) -> Result<()> {
        self.check_mode()?;
        let (this, model) = (self.clone(), ModelName::from(name));
        let unloading = tokio::spawn(async move { this.unload_now(&model, dependents).await });
        match tokio::time::timeout(self.longest, unloading).await {
            Ok(unloaded) => unloaded.map_err(|error| std::panic::resume_unwind(error.into_panic())),
            Err(_) => Err(late(name)),
        }
    }

    async fn unload_now(self: &Arc<Self>, name: &ModelName, dependents: bool) {
        let _turn = self.turn.lock().await;
        let nodes = self.nodes();
        {
            let mut records = self.records.write();
            let is_explicit = |name: &str| records.0.get(name).is_some_and(|record| record.explicit);
            let mut gone = if dependents { plan::dependents(name, &nodes, is_explicit) } else { BTreeSet::new() };
            gone.insert(name.clone());
            for (_, record) in records.0.iter_mut().filter(|(name, _)| gone.contains(*name)) {
                (record.wanted, record.explicit) = (false, false);
                record.failure = None;
                record.replace_overrides(None, None);
            }
        }
        self.update().await;
    }

    /// Loads a model anew that has crashed, once; nothing happens where it has been replaced already.
    pub(crate) fn revive(self: &Arc<Self>, name: &str, crashed: &Pin) {
        let mut records = self.records.write();
        // Under the lock, which a load must take before it begins and when it has ended.
        let is_current = || self.room.is_resident(crashed);
        if !records.0.get_mut(name).is_some_and(|record| is_current() && record.revive()) {
            return;
        }
        drop(records);
        tracing::error!(model = name, "a model crashed and has no instance left; it is loaded anew");
        let this = self.clone();
        tokio::spawn(async move {
            let _turn = this.turn.lock().await;
            this.update().await;
        });
    }

    fn check_mode(&self) -> Result<()> {
        let mode = match self.config.control {
            ModelControlMode::Explicit(_) => return Ok(()),
            ModelControlMode::Poll(_) => "explicit model load / unload is not allowed if polling is enabled",
            ModelControlMode::None => "explicit model load / unload is not allowed in model control mode 'none'",
        };
        Err(Error::unavailable(format!("{mode}; start the server with --model-control-mode=explicit")))
    }

    fn is_explicit(&self) -> bool {
        matches!(self.config.control, ModelControlMode::Explicit(_))
    }

    /// Whether there is a model of this name; where models come without being looked for, it looks again.
    pub(crate) async fn finds(&self, name: &str) -> bool {
        let is_known = || self.with_records(|records| records.is_known(name));
        if !is_known() && self.is_explicit() {
            self.rescan().await;
        }
        is_known()
    }

    /// Looks at the models that are known.
    pub(crate) fn with_records<T>(&self, look: impl FnOnce(&Records) -> T) -> T {
        look(&self.records.read())
    }

    /// Whether every model that is meant to be served is: those that cannot be loaded are not.
    pub(crate) fn is_ready(&self) -> bool {
        if !self.config.strict_readiness {
            return true;
        }
        let records = self.records.read();
        let failed = records.0.iter().filter(|(_, record)| record.wanted && record.failure.is_some());
        let failed: Vec<ArchiveKey> = failed.map(|(name, _)| ArchiveKey::Model(name.clone())).collect();
        failed.is_empty() || self.room.read(|residency| failed.iter().all(|key| residency.peek(key).is_some()))
    }

    /// The repository index; where models come and go without being looked for, it looks first.
    pub(crate) async fn index(&self) -> Vec<IndexEntry> {
        if self.is_explicit() {
            self.rescan().await;
        }
        let records = self.records.read();
        self.room.read(|residency| {
            let of = |(name, record): (&ModelName, &record::Record)| {
                let key = ArchiveKey::Model(name.clone());
                let serving = serving(residency, &key);
                let failure = record.failure.as_ref().map(Error::message);
                let gpus = residency.peek(&key).map(|archive| archive.gpus()).unwrap_or_default();
                let known = Known {
                    serving: &serving,
                    gpus: &gpus,
                    versions: &record.versions,
                    loading: record.loading,
                    unloading: residency.unloading().any(|unloading| *unloading == key),
                    failure,
                    unloaded: record.unloaded,
                };
                lines(name, known)
            };
            records.0.iter().flat_map(of).collect()
        })
    }

    /// The error of a request to a model that does not serve, in Triton's words.
    pub(crate) fn not_ready(name: &str) -> Error {
        let message = format!("Request for unknown model: '{name}' has no available versions");
        Error::new(ErrorKind::NotReady, message).with_model(name)
    }

    /// Lists the repositories anew; the errors are those of repositories that cannot be listed.
    async fn rescan(&self) -> Vec<Error> {
        let scan = look::scan(self.config.folders.clone()).await;
        let (unlisted, errors): (Vec<_>, Vec<_>) = scan.failed.into_iter().unzip();
        let mut records = self.records.write();
        records.note(scan.found, &unlisted);
        if self.is_explicit() {
            self.room.read(|residency| records.forget(|name| is_loaded(residency, name)));
        }
        errors
    }

    fn is_loaded(&self, name: &ModelName) -> bool {
        self.room.read(|residency| is_loaded(residency, name))
    }

    fn nodes(&self) -> plan::Nodes {
        let records = self.records.read();
        self.room.read(|residency| records.nodes(|name| is_loaded(residency, name)))
    }

    fn pin(&self, name: &ModelName) -> Option<Pin> {
        self.room.pin(&ArchiveKey::Model(name.clone()))
    }
}

fn is_loaded(residency: &Residency, name: &ModelName) -> bool {
    residency.peek(&ArchiveKey::Model(name.clone())).is_some()
}

/// The versions that serve, ascending.
fn serving(residency: &Residency, key: &ArchiveKey) -> Vec<u64> {
    let archive = residency.peek(key);
    archive.iter().flat_map(|archive| archive.models.values()).flat_map(|versions| versions.keys().copied()).collect()
}

fn unknown(name: &str) -> Error {
    let message = format!("failed to load '{name}', failed to poll from model repository");
    Error::not_found(message).with_model(name)
}

fn late(name: &str) -> Error {
    let message = format!("model '{name}' takes longer than --load-timeout to load; the load goes on, try again later");
    Error::new(ErrorKind::DeadlineExceeded, message).with_model(name)
}

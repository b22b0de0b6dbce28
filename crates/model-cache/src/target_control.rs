//! Loads and unloads of target models by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use inference::{CacheOutcome, CacheTier, ErrorKind, LoadTiming, Result, TargetModel};
use repository::{Priority, Repository, read_archive_as, read_given_model};

use crate::archive_load::Source;
use crate::flight::{Flights, Landing};
use crate::journey::Journey;
use crate::kept::KeptBy;
use crate::loaded::Files;
use crate::overrides::{Overrides, write_files};
use crate::room::UnloadReason;
use crate::route::ArchiveKey;
use crate::target_load::{TargetLoads, stem};

/// The version of a model that consists of given files alone.
const GIVEN_VERSION: &str = "given";

/// How a target model is loaded by name.
#[derive(Clone)]
pub(crate) struct ByName {
    /// What it is loaded with instead of what the store has.
    pub(crate) overrides: Overrides,
    /// It stays in memory until it is unloaded by name.
    pub(crate) is_kept: bool,
}

impl TargetLoads {
    /// Loads a target model because it was asked for by name: waits for a load under way, and then makes sure that what is
    /// in memory is the store's newest version, or what `how` says. Its download is a prefetch: those that requests wait for go
    /// first.
    ///
    /// # Errors
    /// What the load ended in.
    pub(crate) async fn load_by_name(
        self: &Arc<Self>,
        flights: &Arc<Flights>,
        target: &TargetModel,
        how: ByName,
    ) -> Result<()> {
        loop {
            let mut is_ours = false;
            let passenger = flights.board(target, Priority::Prefetch, |journey| {
                is_ours = true;
                self.clone().renew(target.clone(), how.clone(), journey)
            })?;
            match passenger.land(None).await {
                // It is overdue: who knows when it ends.
                Err(error) if error.kind() == ErrorKind::DeadlineExceeded => return Err(error),
                landing if is_ours => return landing.map(drop),
                _ => {}
            }
        }
    }

    /// Takes a target model out of memory once its requests have ended.
    pub(crate) fn unload_by_name(&self, target: &TargetModel) {
        self.kept.release(target);
        self.room.begin_remove(&ArchiveKey::Target(target.clone()), UnloadReason::Request);
    }

    async fn renew(self: Arc<Self>, target: TargetModel, how: ByName, journey: Journey) -> Landing {
        let key = ArchiveKey::Target(target.clone());
        let config = match how.overrides {
            Overrides::None => None,
            Overrides::Config(config) => Some(config),
            Overrides::Files { config, files } => return self.load_given(&target, config, files, key).await,
        };
        let obtained = self.archives.obtain_newest(&target, &journey, None).await?;
        if let Some(config) = config {
            let (name, path) = (stem(&target).to_owned(), obtained.archive.path().to_owned());
            let version = format!("{}+config", obtained.archive.etag()).into();
            let read = Box::new(move || read_archive_as(&path, &name, Some(&config)));
            return self.load_kept(key, version, obtained.timing, read, Files::Cached(obtained.archive)).await;
        }
        // Before it is loaded, so that whoever unloads it meanwhile has the last word.
        let is_newly_kept = how.is_kept && self.kept.keep(&target, KeptBy::Name);
        let landing = match self.room.pin(&key) {
            Some(pin) if pin.version == *obtained.archive.etag() => Ok(pin.into_landing()),
            _ => self.load_and_remember(&target, obtained, key, &journey, None).await,
        };
        if !how.is_kept && landing.is_ok() || is_newly_kept && landing.is_err() {
            self.kept.release(&target);
        }
        landing.iter().for_each(|(pin, _)| self.room.keep(pin, self.kept.has(&target)));
        landing
    }

    /// A model of given files, which the store need not have.
    async fn load_given(
        &self,
        target: &TargetModel,
        config: Arc<str>,
        files: Arc<BTreeMap<String, Bytes>>,
        key: ArchiveKey,
    ) -> Landing {
        let given = write_files(&self.scratch, files).await?;
        let (directory, name) = (given.directory().to_owned(), stem(target).to_owned());
        let read = Box::new(move || read_given_model(&directory, &name, &config));
        self.load_kept(key, GIVEN_VERSION.into(), LoadTiming::default(), read, Files::Given(Arc::new(given))).await
    }

    /// Loads what is not what the store has; it stays until it is unloaded by name, or loaded again.
    async fn load_kept(
        &self,
        key: ArchiveKey,
        version: Arc<str>,
        timing: LoadTiming,
        read: Box<dyn FnOnce() -> Result<Repository> + Send>,
        files: Files,
    ) -> Landing {
        let tier = CacheTier::Disk;
        let source = Source {
            key,
            version: version.clone(),
            tier,
            read,
            files,
            members: Vec::new(),
            kept: true,
            urgency: None,
            overdue: Arc::default(),
        };
        let pin = self.loads.load(source).await?;
        Ok((pin, CacheOutcome { tier, version, load: Some(timing) }))
    }
}

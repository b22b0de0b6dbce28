//! Loads a repository that is on disk into memory: reads it, makes room for it, loads it, and makes it resident.

use std::sync::Arc;
use std::time::{Duration, Instant};

use inference::{CacheTier, Error, MemoryUsage, Result};
use lru::LruCache;
use parking_lot::Mutex;
use repository::{Priority, Repository, Urgency};
use tokio::sync::{Notify, Semaphore};

use crate::blocking;
use crate::clock::now;
use crate::config::ModelCacheConfig;
use crate::loaded::{Files, LoadedArchive, Pin, ServedModels};
use crate::loader::{Loaded, Loader, Prepared};
use crate::metrics::CacheMetrics;
use crate::residency::Arrival;
use crate::room::{Reservation, Room};
use crate::route::ArchiveKey;

/// How many archives' real sizes are remembered.
const REMEMBERED_SIZES: usize = 16_384;

/// What to load.
pub(crate) struct Source {
    /// What requests will find it by.
    pub(crate) key: ArchiveKey,
    /// Its ETag; empty for what comes from no store.
    pub(crate) version: Arc<str>,
    /// Where its files come from; a metric label.
    pub(crate) tier: CacheTier,
    /// Reads the repository; blocks.
    pub(crate) read: Box<dyn FnOnce() -> Result<Repository> + Send>,
    /// Keeps the files while the models are in memory.
    pub(crate) files: Files,
    /// Models in memory that its ensembles may be composed of besides its own.
    pub(crate) members: Vec<Pin>,
    /// Never evicted.
    pub(crate) kept: bool,
    /// Who waits for what nobody had asked for when it began: while nobody does, nobody is evicted for it either, unless it is
    /// kept. `None` for what was asked for.
    pub(crate) urgency: Option<Urgency>,
    /// Told when the load takes too long and goes on without its slot. Waits for a slot do not count: they are as long as
    /// the loads before it take.
    pub(crate) overdue: Arc<Notify>,
}

/// Loads under way, bounded in number.
pub(crate) struct ArchiveLoads {
    room: Arc<Room>,
    loader: Arc<Loader>,
    slots: Semaphore,
    load_timeout: Duration,
    room_timeout: Duration,
    /// What archives really took, by key and version: better than an estimate the next time.
    sizes: Mutex<LruCache<(ArchiveKey, Arc<str>), MemoryUsage>>,
    metrics: CacheMetrics,
}

impl ArchiveLoads {
    pub(crate) fn new(room: Arc<Room>, loader: Arc<Loader>, config: &ModelCacheConfig) -> Arc<Self> {
        let remembered = REMEMBERED_SIZES.try_into().expect("invariant: not zero");
        Arc::new(ArchiveLoads {
            room,
            loader,
            slots: Semaphore::new(config.load_concurrency.get()),
            load_timeout: config.load_timeout,
            room_timeout: config.room_timeout,
            sizes: Mutex::new(LruCache::new(remembered)),
            metrics: CacheMetrics,
        })
    }

    /// Loads and pins.
    ///
    /// # Errors
    /// What is wrong with the repository, NoRoom, or what a backend ended in.
    pub(crate) async fn load(&self, source: Source) -> Result<Pin> {
        self.load_within(source, self.room_timeout).await
    }

    /// [`ArchiveLoads::load`] that waits no longer than `patience` for pinned models to make room.
    ///
    /// # Errors
    /// As [`ArchiveLoads::load`].
    pub(crate) async fn load_within(&self, source: Source, patience: Duration) -> Result<Pin> {
        let (key, tier, started) = (source.key.clone(), source.tier, Instant::now());
        let loaded = self.load_uncounted(source, patience).await;
        match &loaded {
            Ok(pin) => {
                let bytes: u64 = pin.usage.iter().map(|(_, bytes)| bytes).sum();
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(archive = %key, from = %tier, models = pin.models.len(), bytes, seconds, "loaded");
                self.metrics.loaded(tier, started.elapsed());
            }
            Err(error) => {
                tracing::warn!(archive = %key, "load failed: {error:#}");
                self.metrics.load_failed(error.kind());
            }
        }
        loaded
    }

    async fn load_uncounted(&self, source: Source, patience: Duration) -> Result<Pin> {
        let Source { key, version, read, files, members, kept, urgency, overdue, .. } = source;
        let is_unasked = || !kept && urgency.as_ref().is_some_and(|urgency| urgency.now() == Priority::Prefetch);
        let (loader, composed_of) = (self.loader.clone(), served(&members));
        let immutable = files.are_immutable();
        let prepare = move || loader.prepare(read()?.kept(immutable), composed_of);
        let (prepared, preparing) = self.in_slot(&key, &overdue, prepare).await?;
        let size_key = (key.clone(), version.clone());
        let learned = self.sizes.lock().get(&size_key).cloned();
        let need = learned.unwrap_or_else(|| self.first_need(&prepared));
        // Without a slot: a load that waits for room must not hold up those that fit.
        let mut reservation = self.reserve(&key, need, is_unasked, patience).await?;
        let (loader, archive) = (self.loader.clone(), key.name());
        let (loaded, loading) = self.in_slot(&key, &overdue, move || loader.load(prepared, archive.as_deref())).await?;
        self.sizes.lock().put(size_key, loaded.usage.clone());
        let patience = (!is_unasked()).then_some(patience);
        if let Err(error) = reservation.correct(&key, &loaded.usage, patience).await {
            // Unloading may block, and must be over before the reservation is given back.
            let _ = blocking::spawn(move || drop(loaded)).await;
            return Err(error);
        }
        let Loaded { models, entry, usage } = loaded;
        let took = preparing + loading;
        let archive = LoadedArchive { key, version, usage, took, models, entry, files, members };
        Ok(reservation.commit(archive, Arrival { kept, load: took, is_unasked: is_unasked() }))
    }

    async fn reserve(
        &self,
        key: &ArchiveKey,
        need: MemoryUsage,
        is_unasked: impl Fn() -> bool,
        patience: Duration,
    ) -> Result<Reservation> {
        if is_unasked() {
            match self.room.reserve_free(key, need.clone()) {
                // Somebody has asked meanwhile.
                Err(_) if !is_unasked() => {}
                reserved => return reserved,
            }
        }
        self.room.reserve(key, need, patience).await
    }

    fn first_need(&self, prepared: &Prepared) -> MemoryUsage {
        if prepared.is_stated {
            return prepared.estimate.clone();
        }
        self.room.read(|residency| benefit_of_the_doubt(&prepared.estimate, residency.budget()))
    }

    /// Does work that blocks. Work that hangs gives up its slot after the load timeout, so that others can go on; whoever
    /// waits for it is told, or answered by then (see `flight`). Says how long the work took.
    async fn in_slot<T: Send + 'static>(
        &self,
        key: &ArchiveKey,
        overdue: &Notify,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<(T, Duration)> {
        let slot = self.slots.acquire().await.map_err(|_| Error::unavailable("the server is stopping"))?;
        let started = now();
        let mut working = blocking::spawn(work);
        let done = match tokio::time::timeout(self.load_timeout, &mut working).await {
            Ok(done) => done,
            Err(_) => {
                tracing::error!(archive = %key, "loading takes longer than --load-timeout; it goes on, others may load meanwhile");
                overdue.notify_one();
                drop(slot);
                working.await
            }
        };
        Ok((done.unwrap_or_else(|_| Err(panicked(key)))?, now() - started))
    }
}

/// The models behind these pins, and those that they are made of.
fn served(pins: &[Pin]) -> ServedModels {
    let mut models = ServedModels::new();
    for pin in pins {
        models.extend(served(&pin.members));
        models.extend(pin.models.iter().map(|(name, versions)| (name.clone(), versions.clone())));
    }
    models
}

/// What to make room for before an archive's first load. An estimate that is up to twice the budget may be wrong: the load
/// is tried with all the room there is, and what it really takes decides.
fn benefit_of_the_doubt(estimate: &MemoryUsage, budget: &MemoryUsage) -> MemoryUsage {
    let mut need = MemoryUsage::default();
    for (device, bytes) in estimate.iter() {
        let budget = budget.get(device);
        let doubtful = bytes > budget && bytes / 2 <= budget;
        need.add(device, if doubtful { budget } else { bytes });
    }
    need
}

fn panicked(key: &ArchiveKey) -> Error {
    Error::internal(format!("loading {key} panicked; see the server's log")).from_model()
}

#[cfg(test)]
mod tests {
    use inference::Device;

    use super::*;

    #[test]
    fn an_estimate_somewhat_over_the_budget_is_doubted() {
        let on_host = |bytes| MemoryUsage::on(Device::Host, bytes);
        for (estimate, need) in [(50, 50), (100, 100), (150, 100), (200, 100), (300, 300)] {
            assert_eq!(benefit_of_the_doubt(&on_host(estimate), &on_host(100)), on_host(need));
        }
    }
}

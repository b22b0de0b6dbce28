//! Loads a repository that is on disk into memory: reads it, makes room for it, loads it, and makes it resident.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use inference::{CacheTier, Error, ErrorKind, Result};
use lru::LruCache;
use parking_lot::Mutex;
use repository::{Background, Priority, Repository, Urgency};
use tokio::sync::{Notify, Semaphore};

use crate::blocking;
use crate::clock::now;
use crate::config::ModelCacheConfig;
use crate::loaded::{Files, LoadedArchive, Pin, ServedModels};
use crate::loader::{Loaded, Loader, Sizes};
use crate::metrics::CacheMetrics;
use crate::placement::Demand;
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
    /// Who waits for what nobody had asked for when it began: while nobody does, nobody is evicted for it either. `None` for
    /// what was asked for.
    pub(crate) urgency: Option<Urgency>,
    /// Told when the load takes too long and goes on without its slot. Waits for a slot do not count: they are as long as
    /// the loads before it take.
    pub(crate) overdue: Arc<Notify>,
}

/// How room is made for a load.
#[derive(Clone, Copy)]
enum Manner<'a> {
    /// With this much patience, unless nobody asked for it.
    Within(Duration),
    /// The same; this is to be replaced.
    Beside(&'a Pin, Duration),
    /// With none: this is to be replaced by itself, on GPUs. Says how many bytes must be free on one of them at least.
    BesideItself(&'a Pin, &'a AtomicU64),
}

impl<'a> Manner<'a> {
    fn patience(self) -> Option<Duration> {
        match self {
            Manner::Within(patience) | Manner::Beside(_, patience) => Some(patience),
            Manner::BesideItself(..) => None,
        }
    }

    fn replaces(self) -> Option<&'a Pin> {
        match self {
            Manner::Within(_) => None,
            Manner::Beside(old, _) | Manner::BesideItself(old, _) => Some(old),
        }
    }
}

/// Loads under way, bounded in number.
pub(crate) struct ArchiveLoads {
    room: Arc<Room>,
    loader: Arc<Loader>,
    slots: Semaphore,
    background: Background,
    load_timeout: Duration,
    room_timeout: Duration,
    /// What archives really took, by key and version: better than an estimate the next time.
    sizes: Mutex<LruCache<(ArchiveKey, Arc<str>), Sizes>>,
    metrics: CacheMetrics,
}

impl ArchiveLoads {
    pub(crate) fn new(room: Arc<Room>, loader: Arc<Loader>, config: &ModelCacheConfig) -> Arc<Self> {
        let remembered = REMEMBERED_SIZES.try_into().expect("invariant: not zero");
        Arc::new(ArchiveLoads {
            room,
            loader,
            slots: Semaphore::new(config.load_concurrency.get()),
            background: config.background.clone(),
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
        self.load_counted(source, Manner::Within(self.room_timeout)).await
    }

    /// Loads another version beside `old`, to take the place of that; waits no longer than `patience` for pinned models to make
    /// room.
    ///
    /// # Errors
    /// As [`ArchiveLoads::load`]; NoRoom also when `old` was withdrawn meanwhile, or holds something between requests.
    pub(crate) async fn load_beside(&self, source: Source, old: &Pin, patience: Duration) -> Result<Pin> {
        self.load_counted(source, Manner::Beside(old, patience)).await
    }

    /// Loads an archive beside itself, on GPUs where its configuration leaves it open, and only in room that nobody else
    /// holds; it takes its own place. `needs` becomes how many bytes must be free on one GPU at least, once that is known.
    ///
    /// # Errors
    /// As [`ArchiveLoads::load`]; NoRoom also when `archive` was withdrawn meanwhile, or holds something between requests.
    pub(crate) async fn move_to_gpu(&self, source: Source, archive: &Pin, needs: &AtomicU64) -> Result<Pin> {
        self.load_counted(source, Manner::BesideItself(archive, needs)).await
    }

    async fn load_counted(&self, source: Source, manner: Manner<'_>) -> Result<Pin> {
        let (key, tier, started) = (source.key.clone(), source.tier, Instant::now());
        let loaded = self.load_uncounted(source, manner).await;
        match &loaded {
            Ok(pin) => {
                let bytes: u64 = pin.usage.iter().map(|(_, bytes)| bytes).sum();
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(archive = %key, from = %tier, models = pin.models.len(), bytes, seconds, "loaded");
                self.metrics.loaded(tier, started.elapsed());
            }
            Err(error) if matches!(manner, Manner::BesideItself(..)) && error.kind() == ErrorKind::NoRoom => {
                tracing::debug!(archive = %key, "it stays where it is: {error:#}");
            }
            Err(error) => {
                tracing::warn!(archive = %key, "load failed: {error:#}");
                self.metrics.load_failed(error.kind());
            }
        }
        loaded
    }

    async fn load_uncounted(&self, source: Source, manner: Manner<'_>) -> Result<Pin> {
        let Source { key, version, read, files, members, kept, urgency, overdue, .. } = source;
        let is_unasked = || urgency.as_ref().is_some_and(|urgency| urgency.now() == Priority::Prefetch);
        let (loader, composed_of) = (self.loader.clone(), served(&members));
        let immutable = files.are_immutable();
        let prepare = move || loader.prepare(read()?.kept(immutable), composed_of);
        let (prepared, preparing) = self.in_slot(&key, &overdue, prepare).await?;
        let size_key = (key.clone(), version.clone());
        let learned = self.sizes.lock().get(&size_key).cloned();
        let demand = prepared.demand(learned.as_ref());
        // Without a slot: a load that waits for room must not hold up those that fit.
        let mut reservation = match manner {
            Manner::Within(patience) | Manner::Beside(_, patience) => {
                self.reserve(&key, demand, is_unasked, patience).await?
            }
            Manner::BesideItself(_, needs) => {
                let demand = demand.on_gpus();
                needs.store(demand.least_on_a_gpu(), Ordering::Relaxed);
                self.room.reserve_free(&key, &demand)?
            }
        };
        let (loader, archive, ways) = (self.loader.clone(), key.name(), reservation.ways().to_vec());
        let load = move || loader.load(prepared, &ways, archive.as_deref());
        let (loaded, loading) = self.in_slot(&key, &overdue, load).await?;
        self.sizes.lock().get_or_insert_mut(size_key, Sizes::default).update(&loaded.sizes);
        let patience = manner.patience().filter(|_| !is_unasked());
        if let Err(error) = reservation.correct(&key, &loaded.usage, patience).await {
            // Unloading may block, and must be over before the reservation is given back.
            let _ = blocking::spawn(&self.background, move || drop(loaded)).await;
            return Err(error);
        }
        let Loaded { models, entry, usage, elsewhere, .. } = loaded;
        let took = preparing + loading;
        let archive = LoadedArchive { key, version, usage, took, elsewhere, models, entry, files, members };
        let is_refresh = urgency.as_ref().is_some_and(|urgency| urgency.now() == Priority::Refresh);
        let is_renewal = is_refresh || matches!(manner, Manner::BesideItself(..));
        let arrival = Arrival { kept, load: took, is_unasked: is_unasked(), is_renewal };
        match reservation.commit(archive, arrival, manner.replaces()) {
            Ok(pin) => Ok(pin),
            Err(refused) => {
                let (reservation, archive) = *refused;
                let error = no_place(&archive.key);
                let _ = blocking::spawn(&self.background, move || drop(archive)).await;
                drop(reservation);
                Err(error)
            }
        }
    }

    async fn reserve(
        &self,
        key: &ArchiveKey,
        demand: Demand,
        is_unasked: impl Fn() -> bool,
        patience: Duration,
    ) -> Result<Reservation> {
        if is_unasked() {
            match self.room.reserve_free(key, &demand) {
                // Somebody has asked meanwhile.
                Err(_) if !is_unasked() => {}
                reserved => return reserved,
            }
        }
        self.room.reserve(key, demand, patience).await
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
        let mut working = blocking::spawn(&self.background, work);
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

fn no_place(key: &ArchiveKey) -> Error {
    Error::no_room(format!("{key} leaves no place any more: it was unloaded, or has a live sequence by now"))
}

fn panicked(key: &ArchiveKey) -> Error {
    Error::internal(format!("loading {key} panicked; see the server's log")).from_model()
}

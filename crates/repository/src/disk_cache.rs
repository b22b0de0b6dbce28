//! The disk cache: complete, immutable, unpacked archives, least recently used first out, never out while pinned.

mod fetch;
mod folder;
mod policy;
mod refusals;
mod reservation;
mod resident;
mod use_order;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use inference::{Result, TargetModel};
use parking_lot::Mutex;

use crate::archive::UnpackLimits;
use crate::background::Background;
use crate::download::{DownloadConfig, Downloads};
use folder::Folder;
use policy::{ArchiveKey, Departure, Ledger};
use use_order::UseOrder;

pub use refusals::{Backoff, Refusals};
pub use resident::ResidentArchive;

/// Where the disk cache is, and its bounds.
#[derive(Clone, Debug)]
pub struct DiskCacheConfig {
    /// The cache's own directory; made when missing. One server at a time.
    pub directory: PathBuf,
    /// Bytes that unpacked archives may take together, the ones being unpacked included.
    pub capacity: u64,
    /// What one archive may unpack to.
    pub limits: UnpackLimits,
    /// The longest that one download may take, from asking for the first byte to the last.
    pub download_timeout: Duration,
    /// How long a bad archive is left alone.
    pub refusal_backoff: Backoff,
    /// What bounds downloads together.
    pub download: DownloadConfig,
    /// Where archives are unpacked and deleted.
    pub background: Background,
}

impl DiskCacheConfig {
    /// A cache with ordinary bounds: ten minutes a download; bad archives are tried again after 1 s at
    /// first and 5 minutes at most.
    pub fn new(directory: impl Into<PathBuf>, capacity: u64) -> Self {
        DiskCacheConfig {
            directory: directory.into(),
            capacity,
            limits: UnpackLimits::default(),
            download_timeout: Duration::from_secs(600),
            refusal_backoff: Backoff { initial: Duration::from_secs(1), maximum: Duration::from_secs(300) },
            download: DownloadConfig::default(),
            background: Background::default(),
        }
    }
}

/// How long the parts of a fetch took, wall clock; see [`inference::LoadTiming`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchTiming {
    /// From the store's first byte asked for to its last byte received.
    pub download: Duration,
    /// From the last byte received to the directory's appearance in the disk cache.
    pub unpack: Duration,
}

/// Unpacked archives on disk, by target model and ETag.
///
/// A directory below `entries/` is complete and immutable: it appears by rename, after every byte was checked and flushed.
/// What is being unpacked lives below `staging/`, and is removed at the next start when a crash left it there.
pub struct DiskCache {
    config: DiskCacheConfig,
    store_location: String,
    folder: Folder,
    /// Held for short bookkeeping only, never across I/O.
    state: Mutex<State>,
    /// What is noted on disk as the time of each use.
    use_order: Mutex<UseOrder>,
    downloads: Arc<Downloads>,
    /// Asked to give a pin up when pins leave no room.
    pin_releaser: OnceLock<PinReleaser>,
    /// Locked as long as the cache lives, so that no second server uses the directory.
    _lock: File,
}

/// Gives one pin up; `false` when there is none to spare.
type PinReleaser = Box<dyn Fn() -> bool + Send + Sync>;

struct State {
    ledger: Ledger,
    refusals: Refusals,
}

/// Why something leaves the cache: the label of `panoply_evictions_total`.
#[derive(Clone, Copy)]
enum EvictionReason {
    Capacity,
    DiskFull,
    Replaced,
    Removed,
}

impl EvictionReason {
    fn label(self) -> &'static str {
        match self {
            EvictionReason::Capacity => "capacity",
            EvictionReason::DiskFull => "disk_full",
            EvictionReason::Replaced => "replaced",
            EvictionReason::Removed => "removed",
        }
    }
}

impl DiskCache {
    /// Opens the cache's directory: takes its lock, removes what a crash left behind and what came from another store,
    /// keeps what is complete, and evicts down to the capacity. Blocks.
    ///
    /// # Errors
    /// AlreadyExists when another server uses the directory; Internal when it cannot be read or written.
    pub fn open(config: DiskCacheConfig, store_location: &str) -> Result<Arc<DiskCache>> {
        let (folder, lock) = Folder::open(&config.directory)?;
        let mut ledger = Ledger::new(config.capacity);
        let mut departures = Vec::new();
        let recovered = folder.recover(store_location)?;
        let last_use = recovered.last().map_or(SystemTime::UNIX_EPOCH, |found| found.used_at);
        for found in recovered {
            departures.extend(ledger.insert(found.key, found.bytes, found.directory).1);
        }
        departures.iter().for_each(|departure| ledger.release(departure.bytes));
        // Without pins a shortage cannot be: everything can go.
        departures.extend(ledger.reserve(0).unwrap_or_default());
        for departure in &departures {
            folder.delete(&departure.directory);
        }
        tracing::info!(
            directory = %config.directory.display(),
            archives = ledger.len(),
            bytes = ledger.used(),
            "disk cache opened"
        );
        let refusals = Refusals::new(config.refusal_backoff);
        let state = Mutex::new(State { ledger, refusals });
        let use_order = Mutex::new(UseOrder::after(last_use));
        let downloads = Downloads::new(config.download.clone());
        let store_location = store_location.to_owned();
        let pin_releaser = OnceLock::new();
        let cache =
            DiskCache { config, store_location, folder, state, use_order, downloads, pin_releaser, _lock: lock };
        cache.report_size();
        Ok(Arc::new(cache))
    }

    /// Names who holds pins that it could do without: loaded models that nobody uses, say. It is asked, on a thread that may
    /// block, while an archive would fit but for what is pinned. Only the first call counts.
    pub fn set_pin_releaser(&self, releaser: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.pin_releaser.set(Box::new(releaser));
    }

    /// What to note on disk for a use at this moment.
    fn time_of_use(&self) -> SystemTime {
        self.use_order.lock().next(SystemTime::now())
    }

    fn release_a_pin(&self) -> bool {
        self.pin_releaser.get().is_some_and(|release| release())
    }

    /// The newest version of an archive that is on disk, pinned; whether the store has a newer one is not asked. Makes it
    /// the most recently used, also for the next start (which a blocking thread notes on disk), so call it when loading and
    /// not for every request.
    pub fn lookup(self: &Arc<Self>, target: &TargetModel) -> Option<CachedArchive> {
        let key = self.state.lock().ledger.newest(target)?;
        self.pin(&key)
    }

    /// Every archive on disk, most recently used first: target, ETag, bytes.
    pub fn entries(&self) -> Vec<(TargetModel, Arc<str>, u64)> {
        let state = self.state.lock();
        state.ledger.iter().map(|(key, bytes)| (key.target.clone(), Arc::clone(&key.etag), bytes)).collect()
    }

    /// Takes an archive out of the cache, and forgets that it was ever refused. What is pinned goes with its last pin.
    /// Blocks while files are deleted.
    pub fn remove(&self, target: &TargetModel) {
        let departures = {
            let mut state = self.state.lock();
            state.refusals.forget(target);
            state.ledger.dismiss(target)
        };
        self.delete_reserved(&departures, EvictionReason::Removed);
    }

    /// Makes a version that is pinned the one to use once more; the version that had replaced it goes as if replaced itself.
    pub fn reinstate(self: &Arc<Self>, archive: &CachedArchive) {
        let replaced = self.state.lock().ledger.confirm(&archive.0.key);
        self.delete_replaced(replaced.unwrap_or_default());
    }

    /// Bytes of the complete archives on disk.
    pub fn bytes(&self) -> u64 {
        self.state.lock().ledger.used()
    }

    /// Bytes that may be on disk.
    pub fn capacity(&self) -> u64 {
        self.config.capacity
    }

    fn pin(self: &Arc<Self>, key: &ArchiveKey) -> Option<CachedArchive> {
        let archive = self.pin_in(&mut self.state.lock().ledger, key)?;
        touch(&archive);
        Some(archive)
    }

    fn pin_in(self: &Arc<Self>, ledger: &mut Ledger, key: &ArchiveKey) -> Option<CachedArchive> {
        let (bytes, directory) = ledger.pin(key)?;
        let pin = Pin { cache: Arc::clone(self), key: key.clone(), bytes, tree: self.folder.tree(&directory) };
        Some(CachedArchive(Arc::new(pin)))
    }

    fn unpin(self: &Arc<Self>, key: &ArchiveKey) {
        let departure = self.state.lock().ledger.unpin(key);
        self.delete_replaced(departure.into_iter().collect());
    }

    /// Deletes versions that were replaced, on a thread where that holds nobody up.
    fn delete_replaced(self: &Arc<Self>, departures: Vec<Departure>) {
        if departures.is_empty() {
            return;
        }
        let cache = Arc::clone(self);
        // Pins are taken and dropped on threads that carry requests, too.
        self.config.background.run_or_do(move || cache.delete_reserved(&departures, EvictionReason::Replaced));
    }

    /// Deletes what has left the books but whose bytes are still reserved.
    fn delete_reserved(&self, departures: &[Departure], reason: EvictionReason) {
        self.delete(departures, reason);
        let bytes = departures.iter().map(|departure| departure.bytes).sum();
        self.state.lock().ledger.release(bytes);
    }

    /// Deletes what has left the books, and counts it.
    fn delete(&self, departures: &[Departure], reason: EvictionReason) {
        for Departure { key, bytes, directory } in departures {
            tracing::info!(target_model = %key.target, etag = %key.etag, bytes, reason = reason.label(), "leaves the disk cache");
            self.folder.delete(directory);
            metrics::counter!("panoply_evictions_total", "tier" => "disk", "reason" => reason.label()).increment(1);
        }
        self.report_size();
    }

    /// Sets the gauges.
    fn report_size(&self) {
        let (used, archives) = {
            let state = self.state.lock();
            (state.ledger.used(), state.ledger.len())
        };
        metrics::gauge!("panoply_disk_cache_bytes").set(used as f64);
        metrics::gauge!("panoply_disk_cache_archives").set(archives as f64);
        metrics::gauge!("panoply_disk_cache_capacity_bytes").set(self.config.capacity as f64);
    }
}

/// Notes on disk that an archive was used now. Holds no pin and not the cache, so that neither waits for it.
fn touch(archive: &CachedArchive) {
    let (cache, tree) = (&archive.0.cache, archive.path().to_owned());
    let used_at = cache.time_of_use();
    cache.config.background.run_or_do(move || folder::touch(&tree, used_at));
}

impl fmt::Debug for DiskCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskCache({}, {} of {} bytes)", self.config.directory.display(), self.bytes(), self.capacity())
    }
}

/// An archive in the disk cache. Holding it pins; dropping the last clone releases.
#[derive(Clone, Debug)]
pub struct CachedArchive(Arc<Pin>);

impl CachedArchive {
    /// The root of the unpacked tree.
    pub fn path(&self) -> &Path {
        &self.0.tree
    }

    /// Which version of the archive this is.
    pub fn etag(&self) -> &Arc<str> {
        &self.0.key.etag
    }

    /// What it takes on disk.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Which archive this is.
    pub fn target(&self) -> &TargetModel {
        &self.0.key.target
    }
}

#[derive(Debug)]
struct Pin {
    cache: Arc<DiskCache>,
    key: ArchiveKey,
    bytes: u64,
    tree: PathBuf,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.cache.unpin(&self.key);
    }
}

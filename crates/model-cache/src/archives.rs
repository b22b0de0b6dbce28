//! Archives on disk: from the disk cache while that is fresh, from the model store otherwise.

mod versions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use inference::{CacheTier, Error, ErrorKind, LoadTiming, Result, TargetModel, Trace};
use lru::LruCache;
use parking_lot::Mutex;
use repository::{CachedArchive, DiskCache, FetchTiming, ModelStore, ObjectInfo, was_replaced};

pub(crate) use self::versions::Current;
use crate::config::ModelCacheConfig;
use crate::journey::Journey;
use crate::metrics::CacheMetrics;
use crate::missing_keys::MissingKeys;

/// How often one load begins to fetch its archive, when that is replaced meanwhile.
const MAX_TRIES: u32 = 3;

/// How many archives' checks are remembered; for the others the store is asked again.
const REMEMBERED_CHECKS: usize = 65_536;

/// The model store and the disk cache in front of it.
pub struct Archives {
    store: Arc<dyn ModelStore>,
    disk: Arc<DiskCache>,
    check_interval: Duration,
    /// Which version the store had when it was last asked, and when that was.
    confirmed: Mutex<LruCache<TargetModel, (Arc<str>, Instant)>>,
    missing: Mutex<MissingKeys>,
    /// Versions in the store that turned out to be no good while an older one served.
    rejected: Mutex<LruCache<TargetModel, Arc<str>>>,
}

/// An archive on disk, and how it got there.
#[derive(Clone)]
pub(crate) struct Obtained {
    pub(crate) archive: CachedArchive,
    pub(crate) tier: CacheTier,
    pub(crate) timing: LoadTiming,
}

impl Archives {
    /// Archives of `store`, kept in `disk`.
    pub fn new(store: Arc<dyn ModelStore>, disk: Arc<DiskCache>, config: &ModelCacheConfig) -> Self {
        let remembered = REMEMBERED_CHECKS.try_into().expect("invariant: not zero");
        Archives {
            store,
            disk,
            check_interval: config.store_check_interval,
            confirmed: Mutex::new(LruCache::new(remembered)),
            missing: Mutex::new(MissingKeys::new(config.missing_key_ttl)),
            rejected: Mutex::new(LruCache::new(remembered)),
        }
    }

    /// Names who can give up pins on files when the disk cache has no room otherwise.
    pub(crate) fn set_pin_releaser(&self, releaser: impl Fn() -> bool + Send + Sync + 'static) {
        self.disk.set_pin_releaser(releaser);
    }

    /// The disk cache.
    pub(crate) fn disk(&self) -> &DiskCache {
        &self.disk
    }

    /// What is in the disk cache.
    pub(crate) fn on_disk(&self) -> Vec<TargetModel> {
        self.disk.entries().into_iter().map(|(target, _, _)| target).collect()
    }

    /// The archive on disk, fetched if it is not there or the store has another version by now.
    ///
    /// # Errors
    /// NotFound when the store has no such archive, or had none a moment ago; what the fetch ended in otherwise. A store that
    /// cannot be asked is no error while the archive is on disk.
    pub(crate) async fn obtain(
        &self,
        target: &TargetModel,
        journey: &Journey,
        trace: Option<&Trace>,
    ) -> Result<Obtained> {
        if let Some(archive) = self.disk.lookup(target)
            && is_fresh(self.last_confirmed(target, archive.etag()), self.check_interval, Instant::now())
        {
            return Ok(from_disk(archive));
        }
        if self.missing.lock().is_missing(target, Instant::now()) {
            CacheMetrics.known_missing();
            return Err(unknown(target, self.store.missing(target)));
        }
        self.obtain_but(self.rejected(target), target, journey, trace).await
    }

    /// As [`Archives::obtain`], but asks the store however fresh its last answer is.
    ///
    /// # Errors
    /// As [`Archives::obtain`].
    pub(crate) async fn obtain_newest(
        &self,
        target: &TargetModel,
        journey: &Journey,
        trace: Option<&Trace>,
    ) -> Result<Obtained> {
        self.obtain_but(None, target, journey, trace).await
    }

    /// The store's version, or what is on disk where the store has just the `rejected` one.
    async fn obtain_but(
        &self,
        rejected: Option<Arc<str>>,
        target: &TargetModel,
        journey: &Journey,
        trace: Option<&Trace>,
    ) -> Result<Obtained> {
        let current = self.head(target, trace).await;
        let on_disk = self.disk.lookup(target);
        match (current, on_disk) {
            (Ok(info), Some(archive)) if *archive.etag() == info.etag => {
                self.confirm(target, archive.etag(), Instant::now());
                Ok(from_disk(archive))
            }
            (Ok(info), Some(archive)) if rejected.is_some_and(|rejected| rejected == info.etag) => {
                let (etag, used) = (&*info.etag, &**archive.etag());
                tracing::warn!(%target, etag, used, "the store's version could not be loaded before; an older one is used");
                Ok(from_disk(archive))
            }
            (Ok(info), replaced) => {
                // Its files may go now, which may be just the room that the new version needs.
                drop(replaced);
                self.fetch(target, info, journey, trace).await
            }
            (Err(error), Some(archive)) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%target, %error, "the store cannot be asked; the archive on disk is used as it is");
                Ok(from_disk(archive))
            }
            (Err(error), _) => Err(unknown(target, error)),
        }
    }

    /// Asks the store about the archive.
    async fn head(&self, target: &TargetModel, trace: Option<&Trace>) -> Result<ObjectInfo> {
        let mut span = trace.map(|trace| trace.begin("store.head"));
        let info = self.store.head(target).await;
        match &info {
            Ok(_) => self.missing.lock().forget(target),
            Err(error) if error.kind() == ErrorKind::NotFound => self.missing.lock().record(target, Instant::now()),
            Err(_) => {}
        }
        if let (Some(span), Err(error)) = (&mut span, &info) {
            span.fail(error);
        }
        info
    }

    async fn fetch(
        &self,
        target: &TargetModel,
        mut info: ObjectInfo,
        journey: &Journey,
        trace: Option<&Trace>,
    ) -> Result<Obtained> {
        let mut tries = 1;
        loop {
            let mut span = trace.map(|trace| trace.begin("fetch"));
            journey.fetching(info.size);
            let fetched = self.disk.fetch(&self.store, target, &info, journey.urgency()).await;
            if let Some(span) = &mut span {
                match &fetched {
                    Ok((_, timing)) => tell_parts(&span.inside(), timing),
                    Err(error) => span.fail(error),
                }
            }
            drop(span);
            match fetched {
                Ok((archive, timing)) => {
                    self.confirm(target, archive.etag(), Instant::now());
                    // What is on disk already takes no time, which says nothing about the store.
                    if timing != FetchTiming::default() {
                        journey.fetched(info.size, timing.download + timing.unpack);
                    }
                    let timing = LoadTiming { download: timing.download, unpack: timing.unpack, load: Duration::ZERO };
                    return Ok(Obtained { archive, tier: CacheTier::Store, timing });
                }
                Err(error) if was_replaced(&error) && tries < MAX_TRIES => {
                    tracing::warn!(%target, tries, "fetching it again: {error:#}");
                    tries += 1;
                    info = self.head(target, trace).await.map_err(|error| unknown(target, error))?;
                }
                Err(error) => return Err(error.with_version(&info.etag)),
            }
        }
    }
}

/// The parts of a fetch that has just ended. What is unpacked while it still arrives counts as download.
fn tell_parts(trace: &Trace, timing: &FetchTiming) {
    let ended = Instant::now();
    let (Some(downloaded), Some(began)) =
        (ended.checked_sub(timing.unpack), ended.checked_sub(timing.unpack + timing.download))
    else {
        return;
    };
    trace.record("download", began, downloaded);
    trace.record("unpack", downloaded, ended);
}

fn from_disk(archive: CachedArchive) -> Obtained {
    Obtained { archive, tier: CacheTier::Disk, timing: LoadTiming::default() }
}

/// Whether what is on disk may be used without asking the store.
fn is_fresh(last_confirmed: Option<Instant>, check_interval: Duration, now: Instant) -> bool {
    last_confirmed.is_some_and(|confirmed| now.saturating_duration_since(confirmed) < check_interval)
}

fn unknown(target: &TargetModel, error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let message = format!("Request for unknown model: '{target}' is not found: {}", error.message());
    Error::not_found(message).with_model(target.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_counts_for_its_interval() {
        let (now, interval) = (Instant::now(), Duration::from_secs(60));
        assert!(!is_fresh(None, interval, now));
        assert!(is_fresh(Some(now), interval, now + Duration::from_secs(59)));
        assert!(!is_fresh(Some(now), interval, now + Duration::from_secs(60)));
    }
}

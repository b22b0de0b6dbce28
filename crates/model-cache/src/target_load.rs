//! One flight: a target model from the store or the disk into memory.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inference::{CacheOutcome, Error, ErrorKind, LoadTiming, Result, TargetModel, Trace};
use parking_lot::Mutex;
use repository::{Backoff, Refusals, read_archive};
use tokio::sync::Notify;

use crate::archive_load::{ArchiveLoads, Source};
use crate::archives::{Archives, Obtained};
use crate::flight::Landing;
use crate::journey::Journey;
use crate::kept::KeptTargets;
use crate::loaded::{Files, Pin};
use crate::room::Room;
use crate::route::ArchiveKey;

/// How long an archive that cannot be loaded is left alone: a second at first, five minutes at most.
pub(crate) const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(1), maximum: Duration::from_secs(300) };

/// Loads target models.
pub(crate) struct TargetLoads {
    pub(crate) archives: Archives,
    pub(crate) loads: Arc<ArchiveLoads>,
    pub(crate) room: Arc<Room>,
    /// Where files are written that come with a request to load.
    pub(crate) scratch: Arc<PathBuf>,
    /// Archives that are on disk, whole, and cannot be loaded all the same.
    refusals: Mutex<Refusals>,
    /// What is never evicted.
    pub(crate) kept: KeptTargets,
}

impl TargetLoads {
    pub(crate) fn new(
        archives: Archives,
        loads: Arc<ArchiveLoads>,
        room: Arc<Room>,
        scratch: Arc<PathBuf>,
    ) -> Arc<Self> {
        let holder = Arc::downgrade(&room);
        archives.set_pin_releaser(move || holder.upgrade().is_some_and(|room| room.evict_for_disk()));
        Arc::new(TargetLoads {
            archives,
            loads,
            room,
            scratch,
            refusals: Mutex::new(Refusals::new(BACKOFF)),
            kept: KeptTargets::default(),
        })
    }

    /// The archives that can be loaded without the store.
    pub(crate) fn on_disk(&self) -> Vec<TargetModel> {
        self.archives.on_disk()
    }

    /// Why this version of an archive is not loaded now, if there is a reason.
    pub(crate) fn refusal(&self, target: &TargetModel, version: &str) -> Option<Error> {
        self.refusals.lock().check(target, version, Instant::now())
    }

    /// Archives that could not be loaded, and why.
    pub(crate) fn refused(&self) -> Vec<(TargetModel, Error)> {
        self.refusals.lock().iter().map(|(target, error)| (target.clone(), error.clone())).collect()
    }

    /// Obtains the archive, loads its models, and pins them.
    pub(crate) async fn load(self: Arc<Self>, target: TargetModel, journey: Journey, trace: Option<Trace>) -> Landing {
        let key = ArchiveKey::Target(target.clone());
        if let Some(pin) = self.room.pin(&key) {
            // Another flight landed between the caller's look and this one's departure.
            return Ok(pin.into_landing());
        }
        let obtained = self.archives.obtain(&target, &journey, trace.as_ref()).await?;
        if let Some(refusal) = self.refusal(&target, obtained.archive.etag()) {
            return Err(refusal);
        }
        self.load_and_remember(&target, obtained, key, &journey, trace).await
    }

    /// [`TargetLoads::load_obtained`], traced, and told as a landing.
    pub(crate) async fn load_and_remember(
        &self,
        target: &TargetModel,
        obtained: Obtained,
        key: ArchiveKey,
        journey: &Journey,
        trace: Option<Trace>,
    ) -> Landing {
        let version = obtained.archive.etag().clone();
        let (tier, timing, started) = (obtained.tier, obtained.timing, Instant::now());
        let mut span = trace.map(|trace| trace.begin("load"));
        let pin = self.load_obtained(target, obtained, key, journey, None).await;
        if let (Some(span), Err(error)) = (&mut span, &pin) {
            span.fail(error);
        }
        drop(span);
        let load = LoadTiming { load: started.elapsed(), ..timing };
        Ok((pin?, CacheOutcome { tier, version, load: Some(load) }))
    }

    /// Loads what is on disk, and remembers whether that could be done. What is loaded `beside` another version, to take the place
    /// of that, waits for room no longer than is said there.
    ///
    /// # Errors
    /// What the load ended in.
    pub(crate) async fn load_obtained(
        &self,
        target: &TargetModel,
        obtained: Obtained,
        key: ArchiveKey,
        journey: &Journey,
        beside: Option<(&Pin, Duration)>,
    ) -> Result<Pin> {
        let Obtained { archive, tier, .. } = obtained;
        let (version, bytes) = (archive.etag().clone(), archive.bytes());
        let (name, files) = (stem(target).to_owned(), Files::Cached(archive.clone()));
        journey.loading(bytes);
        let overdue = Arc::new(Notify::new());
        let source = Source {
            key,
            version: version.clone(),
            tier,
            read: Box::new(move || read_archive(archive.path(), &name)),
            files,
            members: Vec::new(),
            kept: self.kept.has(target),
            urgency: journey.unasked().cloned(),
            overdue: overdue.clone(),
        };
        let mut loading = pin!(async {
            match beside {
                Some((old, patience)) => self.loads.load_beside(source, old, patience).await,
                None => self.loads.load(source).await,
            }
        });
        let loaded = tokio::select! {
            biased;
            loaded = &mut loading => loaded,
            () = overdue.notified() => {
                journey.overdue();
                loading.await
            }
        };
        if let Ok(pin) = &loaded {
            journey.loaded(bytes, pin.took);
            // Somebody may have changed that during the load.
            self.room.keep(pin, self.kept.has(target));
        }
        let loaded = loaded.map_err(|error| error.with_version(&version));
        self.remember(target, &version, &loaded);
        loaded
    }

    /// A broken archive is not loaded again for every request. What depends on the moment (no room, say) is tried again
    /// at once.
    fn remember(&self, target: &TargetModel, version: &Arc<str>, loaded: &Result<Pin>) {
        let mut refusals = self.refusals.lock();
        match loaded {
            Ok(_) => refusals.forget(target),
            Err(error) if is_lasting(error.kind()) => refusals.record(target, version, error.clone(), Instant::now()),
            Err(_) => {}
        }
    }
}

/// Whether an error lies in the archive, and not in the moment.
pub(crate) fn is_lasting(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidArgument | ErrorKind::NotFound | ErrorKind::Unsupported | ErrorKind::Internal)
}

/// The archive's file name without `.tar.gz`: the model's name where its configuration sits at the root without one.
pub(crate) fn stem(target: &TargetModel) -> &str {
    let file = Path::new(target.as_str()).file_name().and_then(|name| name.to_str()).unwrap_or(target.as_str());
    file.strip_suffix(".tar.gz").or_else(|| file.strip_suffix(".tgz")).unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stem_is_the_file_name_without_its_suffix() {
        for (target, expected) in [("a.tar.gz", "a"), ("t/b.tgz", "b"), ("t/c", "c"), ("x.y.tar.gz", "x.y")] {
            assert_eq!(stem(&TargetModel::new(target).expect("valid")), expected);
        }
    }
}

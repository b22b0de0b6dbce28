//! One replacement: the store's version of an archive is fetched and loaded beside the one that serves, and takes its place.
//! Whatever goes wrong, the old one serves on where it can.

use std::sync::Arc;
use std::time::{Duration, Instant};

use inference::{CacheOutcome, CacheTier, Error, ErrorKind, LoadTiming, Result, TargetModel};
use repository::{CachedArchive, Priority};

use super::outcome::{self, Outcome};
use super::{LONGEST_PAUSE_OF_BROKEN, Refresh};
use crate::archives::Obtained;
use crate::config::ReplaceWithoutRoom;
use crate::flight::Landing;
use crate::journey::Journey;
use crate::loaded::Pin;
use crate::room::UnloadReason;
use crate::route::ArchiveKey;
use crate::target_load::{BACKOFF, is_lasting};
use crate::unasked::no_room_unasked;

/// How long a new version waits for models in use to make room beside the old one. Loads that requests wait for stand behind
/// it meanwhile.
const PATIENCE: Duration = Duration::from_millis(250);

/// A version that did not come to serve.
struct Failure {
    version: Arc<str>,
    outcome: Outcome,
    error: Error,
}

impl Refresh {
    /// The flight of a replacement. It lands with whichever version serves in the end.
    pub(super) async fn bring(&self, target: &TargetModel, version: Arc<str>, journey: Journey) -> Landing {
        let key = ArchiveKey::Target(target.clone());
        if self.of_store(&key).is_some_and(|old| old.is_busy()) {
            Outcome::Busy.count();
            return self.whatever_serves(target, journey).await;
        }
        let obtained = self.targets.archives.obtain_newest(target, &journey, None).await;
        // Held from here on: the models of the new version do not push the old one out. Until here others may.
        let Some(old) = self.of_store(&key) else { return self.whatever_serves(target, journey).await };
        match obtained {
            Ok(obtained) if *obtained.archive.etag() != old.version => {
                self.put_in_place(target, key, obtained, old, journey).await
            }
            Ok(_) => Ok(old.into_landing()),
            // Deleted just now: the next check will see.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(old.into_landing()),
            Err(error) => {
                self.fail(target, Some(&old), Failure { version, outcome: Outcome::FetchFailed, error });
                Ok(old.into_landing())
            }
        }
    }

    /// The version of the store's that serves.
    fn of_store(&self, key: &ArchiveKey) -> Option<Pin> {
        self.room.pin_unused(key).filter(|pin| pin.of_store().is_some())
    }

    /// For those who have joined the flight; where nobody has, nothing is loaded.
    async fn whatever_serves(&self, target: &TargetModel, journey: Journey) -> Landing {
        if journey.urgency().now() != Priority::Interactive {
            // Who joins only now begins a flight of its own.
            return Err(no_room_unasked(format!("'{target}' left memory before its new version came")));
        }
        self.targets.clone().load(target.clone(), journey, None).await
    }

    async fn put_in_place(
        &self,
        target: &TargetModel,
        key: ArchiveKey,
        new: Obtained,
        old: Pin,
        journey: Journey,
    ) -> Landing {
        if old.is_busy() {
            return Ok(busy(old));
        }
        let (version, tier, timing, started) = (new.archive.etag().clone(), new.tier, new.timing, Instant::now());
        let landed = |pin: Pin, outcome| {
            self.succeed(target, &pin, outcome);
            let load = LoadTiming { load: started.elapsed(), ..timing };
            Ok((pin, CacheOutcome { tier, version: version.clone(), load: Some(load) }))
        };
        let beside = self.load(target, &key, new.clone(), &journey, Some((&old, PATIENCE))).await;
        let error = match beside {
            Ok(pin) => return landed(pin, Outcome::Replaced),
            Err(error) => error,
        };
        if !self.room.is_resident(&old) {
            // Unloaded by name meanwhile, say. Nobody but who has joined wants it any more.
            drop(old);
            return self.whatever_serves(target, journey).await;
        }
        if old.is_busy() {
            return Ok(busy(old));
        }
        let has_no_room = error.kind() == ErrorKind::NoRoom;
        if !(has_no_room && self.may_make_a_gap(target, &version)) {
            let outcome = if has_no_room { Outcome::NoRoom } else { Outcome::LoadFailed };
            self.fail(target, Some(&old), Failure { version, outcome, error });
            return Ok(old.into_landing());
        }
        let files = old.files.cached().cloned();
        drop(old);
        tracing::info!(%target, "its new version does not fit beside the old one, which is unloaded first");
        // Whoever asks now waits for this flight.
        self.room.remove(&key, UnloadReason::Replaced).await;
        match self.load(target, &key, new, &journey, None).await {
            Ok(pin) => landed(pin, Outcome::ReplacedWithGap),
            Err(error) => {
                self.go_back(target, &key, files, &journey, Failure { version, outcome: Outcome::Lost, error }).await
            }
        }
    }

    /// Whether the old version may be unloaded before this one is loaded: not again after that was in vain, or what can never
    /// be loaded would interrupt it again and again.
    fn may_make_a_gap(&self, target: &TargetModel, version: &Arc<str>) -> bool {
        self.without_room == ReplaceWithoutRoom::Gap && self.gaps.lock().get(target) != Some(version)
    }

    /// Loads the old version again, after the new one turned out not to load in its place.
    async fn go_back(
        &self,
        target: &TargetModel,
        key: &ArchiveKey,
        files: Option<CachedArchive>,
        journey: &Journey,
        failure: Failure,
    ) -> Landing {
        let error = failure.error.clone();
        let Some(archive) = files else {
            self.fail(target, None, failure);
            return Err(error);
        };
        let (old, started) = (archive.etag().clone(), Instant::now());
        let before = Obtained { archive, tier: CacheTier::Disk, timing: LoadTiming::default() };
        match self.load(target, key, before, journey, None).await {
            Ok(pin) => {
                // Not before: what is known of archives that are not in memory is forgotten, as this one was meanwhile.
                self.gaps.lock().insert(target.clone(), failure.version.clone());
                let outcome = if error.kind() == ErrorKind::NoRoom { Outcome::NoRoom } else { Outcome::LoadFailed };
                self.fail(target, Some(&pin), Failure { outcome, ..failure });
                let load = LoadTiming { load: started.elapsed(), ..LoadTiming::default() };
                Ok((pin, CacheOutcome { tier: CacheTier::Disk, version: old, load: Some(load) }))
            }
            Err(again) => {
                tracing::error!(%target, "the version before cannot be loaded again either: {again:#}");
                self.fail(target, None, failure);
                Err(error)
            }
        }
    }

    async fn load(
        &self,
        target: &TargetModel,
        key: &ArchiveKey,
        obtained: Obtained,
        journey: &Journey,
        beside: Option<(&Pin, Duration)>,
    ) -> Result<Pin> {
        match self.targets.refusal(target, obtained.archive.etag()) {
            Some(refusal) => Err(refusal),
            None => self.targets.load_obtained(target, obtained, key.clone(), journey, beside).await,
        }
    }

    fn succeed(&self, target: &TargetModel, new: &Pin, outcome: Outcome) {
        outcome.count();
        self.forget(std::slice::from_ref(target));
        tracing::info!(%target, etag = &*new.version, outcome = outcome.label(), "the store's new version serves");
    }

    /// Remembers what keeps a new version from serving; `old` is what serves on.
    fn fail(&self, target: &TargetModel, old: Option<&Pin>, failure: Failure) {
        let Failure { version, outcome, error } = failure;
        outcome.count();
        let longest_pause = if is_lasting(error.kind()) { LONGEST_PAUSE_OF_BROKEN } else { BACKOFF.maximum };
        let is_in_memory = self.version_in_memory(target).is_some();
        let mut failures = self.failures.lock();
        let is_known = failures.knows(target, &version);
        match is_in_memory {
            true => failures.record_for(longest_pause, target, &version, error.clone(), Instant::now()),
            // It will be loaded for who asks, or is not wanted any more.
            false => failures.forget(target),
        }
        outcome::outdated(failures.len());
        drop(failures);
        if !is_known {
            let (etag, outcome, serving) = (&*version, outcome.label(), old.map(|old| &*old.version));
            tracing::warn!(%target, etag, outcome, serving, "the store's new version does not serve: {error:#}");
        }
        // What has no room now may have it later, and is on disk already.
        if let Some(files) = old.and_then(|old| old.files.cached())
            && is_lasting(error.kind())
        {
            self.targets.archives.reject(target, &version, files);
        }
    }
}

/// The old version serves on until its sequences have ended.
fn busy(old: Pin) -> (Pin, CacheOutcome) {
    Outcome::Busy.count();
    old.into_landing()
}

//! Keeps target models in memory in step with the store: asks about each of them once in an interval, replaces what was
//! replaced there, and lets go of what was deleted. No request waits for any of it.

mod check;
mod list;
mod listings;
mod missing;
mod outcome;
mod replace;
mod schedule;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use inference::TargetModel;
use parking_lot::Mutex;
use repository::{HEADS_PER_PAGE, Priority, Refusals};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::check::Next;
use self::list::Listed;
use self::listings::Listings;
use self::missing::Missing;
use self::schedule::{Schedule, Tracked};
use crate::config::{ModelCacheConfig, ReplaceWithoutRoom};
use crate::flight::Flights;
use crate::room::Room;
use crate::target_load::{BACKOFF, TargetLoads};

pub(crate) use self::outcome::describe_metrics;

/// How many questions to the store are under way at once.
const CHECKS_AT_ONCE: usize = 8;

/// A version that is no good itself is left alone for longer in the end than what lies in the moment: each try downloads it
/// again, for as long as nobody puts another one in its place.
const LONGEST_PAUSE_OF_BROKEN: Duration = Duration::from_secs(6 * 3600);

/// The shortest and the longest time between two looks at what is in memory.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Keeps what is in memory in step with the store.
pub(crate) struct Refresh {
    targets: Arc<TargetLoads>,
    flights: Arc<Flights>,
    room: Arc<Room>,
    /// Each archive is asked about once in this time; the rest of the interval is for asking again, and for the asking.
    window: Duration,
    without_room: ReplaceWithoutRoom,
    /// Replacements under way: not all of the loads that may be, so that requests for other archives find a slot.
    replacements: Semaphore,
    /// Newer versions that could not be fetched or loaded.
    failures: Mutex<Refusals>,
    /// The versions for which the one before was unloaded in vain.
    gaps: Mutex<HashMap<TargetModel, Arc<str>>>,
    /// What the store does not have any more.
    missing: Mutex<Missing>,
    /// The last check got no answer; said once.
    is_store_away: AtomicBool,
    /// The store seems to have lost all; said once.
    is_store_empty: AtomicBool,
}

impl Refresh {
    pub(crate) fn new(targets: Arc<TargetLoads>, flights: Arc<Flights>, config: &ModelCacheConfig) -> Arc<Self> {
        outcome::start_metrics();
        let room = targets.room.clone();
        Arc::new(Refresh {
            targets,
            flights,
            room,
            window: (config.store_check_interval * 3 / 4).max(LOOKS.0),
            without_room: config.replace_without_room,
            replacements: Semaphore::new((config.load_concurrency.get() / 2).max(1)),
            failures: Mutex::new(Refusals::new(BACKOFF)),
            gaps: Mutex::default(),
            missing: Mutex::new(Missing::new(config.store_check_interval / 8, config.store_check_interval)),
            is_store_away: AtomicBool::new(false),
            is_store_empty: AtomicBool::new(false),
        })
    }

    /// Why an archive in memory is not what the store has, as far as that is known.
    pub(crate) fn outdated(&self, target: &TargetModel) -> Option<String> {
        if self.missing.lock().has(target) {
            return Some("the store does not have it any more; it serves until that is certain".to_owned());
        }
        let failures = self.failures.lock();
        let why = failures.last(target)?.message();
        Some(format!("an older version serves, because the store's newest could not be loaded: {why}"))
    }

    /// Never ends.
    pub(crate) async fn run(self: Arc<Self>) {
        let (mut schedule, mut seen) = (Schedule::new(self.window), Seen::default());
        let (mut checks, mut replacements, mut reading) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        let mut listings = Listings::new(self.window, HEADS_PER_PAGE, Instant::now());
        let look_again = (self.window / 16).clamp(LOOKS.0, LOOKS.1);
        loop {
            let now = Instant::now();
            if seen.is_due(now, look_again) && seen.is_news(self.room.read(|residency| residency.changes())) {
                let Tracked { came, gone } = schedule.track(self.in_memory(), now);
                self.forget(&gone);
                // Whatever was noted by a check that ended after it had left.
                self.forget_missing(&came);
            }
            if reading.is_empty()
                && let Some(pages) = listings.begin(schedule.len(), now)
                && let Some(listing) = self.targets.archives.list()
            {
                reading.spawn(self.clone().read(listing, pages));
            }
            for target in schedule.take_due(now, CHECKS_AT_ONCE.saturating_sub(checks.len())) {
                let this = self.clone();
                checks.spawn(async move { (this.check(&target).await, target) });
            }
            let wait = schedule.next_due().map_or(look_again, |due| due.saturating_duration_since(now));
            tokio::select! {
                Some(Ok((next, target))) = checks.join_next() => match next {
                    Next::InTurn => schedule.checked(&target, Instant::now()),
                    Next::At(due) => schedule.check_again(&target, due),
                    Next::Replace(version) => {
                        let this = self.clone();
                        replacements.spawn(async move {
                            this.replace(&target, version).await;
                            target
                        });
                    }
                },
                Some(Ok(Listed { ending, asked, unchanged })) = reading.join_next() => {
                    listings.ended(ending, Instant::now());
                    unchanged.iter().for_each(|target| schedule.settled(target, asked));
                }
                Some(Ok(target)) = replacements.join_next() => schedule.checked(&target, Instant::now()),
                () = tokio::time::sleep(wait.clamp(LOOKS.0, look_again)) => {}
            }
        }
    }

    /// The archives in memory that are versions of the store's, and when it last said that it has them.
    fn in_memory(&self) -> Vec<(TargetModel, Option<Instant>)> {
        let with_last = |(target, version): (TargetModel, Arc<str>)| {
            let last = self.targets.archives.last_confirmed(&target, &version);
            (target, last)
        };
        self.versions().into_iter().map(with_last).collect()
    }

    /// The archives in memory that are versions of the store's, and which.
    fn versions(&self) -> Vec<(TargetModel, Arc<str>)> {
        self.room.read(|residency| {
            let of_store = residency.iter().filter_map(|archive| archive.of_store());
            of_store.map(|(target, files)| (target.clone(), files.etag().clone())).collect()
        })
    }

    /// Forgets what went wrong with archives that are in memory no more, or serve as the store has them.
    fn forget(&self, targets: &[TargetModel]) {
        if targets.is_empty() {
            return;
        }
        self.forget_missing(targets);
        self.gaps.lock().retain(|target, _| !targets.contains(target));
        let mut failures = self.failures.lock();
        targets.iter().for_each(|target| failures.forget(target));
        outcome::outdated(failures.len());
    }

    fn forget_missing(&self, targets: &[TargetModel]) {
        let mut missing = self.missing.lock();
        targets.iter().for_each(|target| missing.forget(target));
    }

    /// Brings the store's version of an archive into memory, as a flight that requests can join.
    async fn replace(self: &Arc<Self>, target: &TargetModel, version: Arc<str>) {
        let _turn = self.replacements.acquire().await.expect("invariant: never closed");
        if self.version_in_memory(target).is_none_or(|current| current == version) {
            return;
        }
        let (this, name) = (self.clone(), target.clone());
        let depart = |journey| async move { this.bring(&name, version, journey).await };
        // Where the archive has a flight already, that one brings what the store has.
        if let Some(landed) = self.flights.begin(target, Priority::Refresh, depart) {
            landed.await;
        }
    }
}

/// When the archives in memory were looked at last, and what there was.
#[derive(Default)]
struct Seen {
    looked: Option<Instant>,
    changes: Option<u64>,
}

impl Seen {
    /// Whether it is time for another look, which this counts as.
    fn is_due(&mut self, now: Instant, look_again: Duration) -> bool {
        let is_due = self.looked.is_none_or(|looked| now >= looked + look_again);
        if is_due {
            self.looked = Some(now);
        }
        is_due
    }

    /// Whether anything has come or gone since.
    fn is_news(&mut self, changes: u64) -> bool {
        self.changes.replace(changes) != Some(changes)
    }
}

//! How much memory would hold what is asked for: a ghost list of what was evicted, and what came back from it. Pure.
//!
//! Had memory held all that it holds when an archive comes back and all that was evicted after it, the archive would never have
//! left: that is its reuse distance. What of it is beyond the budget was missing. Enough memory for nine of ten that came back within the window
//! is what the working set is short of. What is used once, as in a scan, never comes back and counts for nothing.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use inference::MemoryUsage;
use lru::LruCache;

use crate::churn::Held;
use crate::route::ArchiveKey;

/// What comes back within this time after it was evicted belongs to the working set.
pub(crate) const WINDOW: Duration = Duration::from_secs(600);
/// How many evicted archives are remembered.
const GHOSTS: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
/// How many returns are remembered; the latest of a window are enough.
const RETURNS: usize = 1024;
/// Fewer returns than this in a window worry nobody.
const MIN_RETURNS: usize = 10;
/// Loading what came back may take one of so many parts of the time before it worries.
const LOAD_PART: u32 = 10;
/// Warnings come no more often than this.
const WARNING_INTERVAL: Duration = WINDOW;

/// What was evicted, and what came back too soon.
pub(crate) struct WorkingSet {
    /// Evicted and not back, the latest first.
    ghosts: LruCache<ArchiveKey, Ghost>,
    /// The earliest first.
    returns: VecDeque<Return>,
    warned: Option<Instant>,
}

struct Ghost {
    usage: MemoryUsage,
    at: Instant,
}

struct Return {
    at: Instant,
    /// What the budget was short of.
    distance: MemoryUsage,
    load: Duration,
}

/// The working set does not fit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Warning {
    /// How many archives came back within the window.
    pub(crate) returns: usize,
    /// How long loading them took.
    pub(crate) load: Duration,
    /// How much more memory would have held nine of ten.
    pub(crate) shortfall: MemoryUsage,
}

impl WorkingSet {
    pub(crate) fn new() -> Self {
        WorkingSet { ghosts: LruCache::new(GHOSTS), returns: VecDeque::new(), warned: None }
    }

    /// An archive left because others needed its room.
    pub(crate) fn evicted(&mut self, key: ArchiveKey, usage: MemoryUsage, now: Instant) {
        self.ghosts.put(key, Ghost { usage, at: now });
    }

    /// An archive was loaded; `held` counts it already.
    pub(crate) fn loaded(&mut self, key: &ArchiveKey, load: Duration, held: &Held, now: Instant) {
        let Some(left) = self.ghosts.peek(key).map(|ghost| ghost.at) else { return };
        let mut distance = held.used.clone();
        let later = self.ghosts.iter().take_while(|(ghost, _)| *ghost != key);
        later.for_each(|(_, ghost)| distance.add_all(&ghost.usage));
        distance.remove_all(&held.budget);
        self.ghosts.pop(key);
        if now.saturating_duration_since(left) <= WINDOW {
            self.returns.push_back(Return { at: now, distance, load });
        }
        self.forget_before(now);
    }

    /// How much more memory on each device would have held nine of ten of what came back within the window.
    pub(crate) fn shortfall(&mut self, now: Instant) -> MemoryUsage {
        self.forget_before(now);
        let mut shortfall = MemoryUsage::default();
        let mut devices: Vec<_> =
            self.returns.iter().flat_map(|back| back.distance.iter()).map(|(device, _)| device).collect();
        devices.sort_unstable();
        devices.dedup();
        for device in devices {
            let mut distances: Vec<u64> = self.returns.iter().map(|back| back.distance.get(device)).collect();
            distances.sort_unstable();
            shortfall.add(device, distances[(distances.len() * 9).div_ceil(10) - 1]);
        }
        shortfall
    }

    /// Whether it is time to say that the working set does not fit: as much came back within the window as is `resident`, or
    /// loading it took a tenth of the time, and more memory would have spared it that.
    pub(crate) fn warning(&mut self, resident: usize, now: Instant) -> Option<Warning> {
        let shortfall = self.shortfall(now);
        let returns = self.returns.len();
        let load: Duration = self.returns.iter().map(|back| back.load).sum();
        let is_short = shortfall.iter().next().is_some();
        let is_much = returns >= resident.min(RETURNS) || load >= WINDOW / LOAD_PART;
        let is_bad = is_short && returns >= MIN_RETURNS && is_much;
        let is_due = self.warned.is_none_or(|warned| now.saturating_duration_since(warned) >= WARNING_INTERVAL);
        (is_bad && is_due).then(|| {
            self.warned = Some(now);
            Warning { returns, load, shortfall }
        })
    }

    fn forget_before(&mut self, now: Instant) {
        let is_past = |back: &Return| now.saturating_duration_since(back.at) > WINDOW;
        while self.returns.len() > RETURNS || self.returns.front().is_some_and(is_past) {
            self.returns.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use inference::{Device, TargetModel};
    use proptest::prelude::*;

    use super::*;

    fn key(name: usize) -> ArchiveKey {
        ArchiveKey::Target(TargetModel::new(&format!("{name}.tar.gz")).expect("valid"))
    }

    fn on_host(bytes: u64) -> MemoryUsage {
        MemoryUsage::on(Device::Host, bytes)
    }

    /// A cache of archives of these sizes that evicts what was used least recently, and what it is short of.
    struct Cache<'a> {
        sizes: &'a [u64],
        budget: u64,
        resident: Vec<usize>,
        working_set: WorkingSet,
        loads: usize,
        now: Instant,
    }

    impl<'a> Cache<'a> {
        fn new(sizes: &'a [u64], budget: u64) -> Self {
            let (resident, working_set) = (Vec::new(), WorkingSet::new());
            Cache { sizes, budget, resident, working_set, loads: 0, now: Instant::now() }
        }

        fn ask(&mut self, name: usize) {
            self.now += Duration::from_millis(100);
            if let Some(place) = self.resident.iter().position(|resident| *resident == name) {
                self.resident.remove(place);
            } else {
                self.loads += 1;
                while self.resident.iter().map(|name| self.sizes[*name]).sum::<u64>() + self.sizes[name] > self.budget {
                    let victim = self.resident.remove(0);
                    self.working_set.evicted(key(victim), on_host(self.sizes[victim]), self.now);
                }
                let used = self.resident.iter().map(|name| self.sizes[*name]).sum::<u64>() + self.sizes[name];
                let held =
                    Held { budget: on_host(self.budget), used: on_host(used), archives: self.resident.len() + 1 };
                self.working_set.loaded(&key(name), Duration::from_millis(50), &held, self.now);
            }
            self.resident.push(name);
        }
    }

    #[test]
    fn a_circle_is_short_of_what_does_not_fit() {
        let sizes = [10; 13];
        let mut cache = Cache::new(&sizes, 100);
        (0..130).for_each(|step| cache.ask(step % 13));
        assert_eq!(cache.working_set.shortfall(cache.now), on_host(30));
        let warning = cache.working_set.warning(10, cache.now).expect("everything comes back");
        assert_eq!((warning.returns, warning.shortfall), (117, on_host(30)));
        assert_eq!(warning.load, 117 * Duration::from_millis(50));
        assert_eq!(cache.working_set.warning(10, cache.now), None, "it has just been said");
        cache.now += WINDOW + Duration::from_secs(1);
        assert_eq!(cache.working_set.shortfall(cache.now), on_host(0), "long ago");
    }

    #[test]
    fn a_warning_that_would_say_nothing_does_not_put_off_one_that_does() {
        let mut cache = Cache::new(&[10; 2], 20);
        // What comes back into memory that holds it was not evicted for want of any.
        for _ in 0..20 {
            cache.ask(0);
            cache.resident.clear();
            cache.working_set.evicted(key(0), on_host(10), cache.now);
        }
        assert!(cache.working_set.returns.len() >= MIN_RETURNS);
        assert_eq!(cache.working_set.warning(1, cache.now), None);
        cache.budget = 10;
        (0..200).for_each(|step| cache.ask(step % 2));
        assert_eq!(cache.working_set.warning(1, cache.now).expect("now it is short").shortfall, on_host(10));
    }

    #[test]
    fn a_scan_is_no_working_set() {
        let sizes = [10; 1000];
        let mut cache = Cache::new(&sizes, 100);
        for scanned in 5..1000 {
            (0..5).chain([scanned]).for_each(|name| cache.ask(name));
        }
        assert_eq!(cache.working_set.shortfall(cache.now), on_host(0));
        assert_eq!(cache.working_set.warning(10, cache.now), None);
    }

    #[test]
    fn what_comes_back_a_day_later_is_no_working_set() {
        let mut cache = Cache::new(&[10; 20], 100);
        for _ in 0..3 {
            (0..20).for_each(|name| cache.ask(name));
            cache.now += Duration::from_secs(86_400);
            cache.resident.clear();
            cache.now += WINDOW;
        }
        assert_eq!(cache.working_set.warning(10, cache.now), None);
    }

    proptest! {
        /// What is said to be missing is enough: with it, nine of ten that came back too late would not have left.
        #[test]
        fn the_shortfall_would_have_been_enough(
            sizes in proptest::collection::vec(1u64..40, 4..16),
            asked in proptest::collection::vec(any::<prop::sample::Index>(), 50..400),
        ) {
            let asked: Vec<usize> = asked.iter().map(|index| index.index(sizes.len())).collect();
            let mut small = Cache::new(&sizes, 60);
            asked.iter().for_each(|name| small.ask(*name));
            let returns = small.working_set.returns.len();
            let shortfall = small.working_set.shortfall(small.now).get(Device::Host);
            // An archive in the way at an eviction may be larger than what is missing: a largest one's room on top.
            let mut large = Cache::new(&sizes, 60 + shortfall + 40);
            asked.iter().for_each(|name| large.ask(*name));
            let first_loads = small.loads - returns;
            prop_assert!(large.loads - first_loads <= returns / 10 + 1, "{} of {returns}", large.loads - first_loads);
        }
    }
}

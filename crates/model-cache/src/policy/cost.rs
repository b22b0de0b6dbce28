//! What saves the fewest load seconds per byte first: load seconds × chance of reuse ÷ bytes. In the family of
//! GreedyDual-Size-Frequency, with a chance that decays instead of a floor that rises.
//!
//! The cache's own clock counts turnovers: with n archives resident, each load moves it by 1/n, each hour by one. An archive's
//! chance of reuse is the decayed share of that clock's time in which it was used: each turnover halves what was counted
//! before. However many requests come between two loads, they count once; what is asked for between any two loads has the
//! chance 1, however hot its neighbour is, and what nobody asks for any more falls behind within a few turnovers. What has left
//! is remembered with its chance and its load seconds, so that it need not prove itself again.
//!
//! Decay multiplies all chances alike, so it does not change the order; instead of decaying the past, each use is given more
//! weight than the last (in logarithms, so that nothing overflows). A score then only ever rises with use: `used` notes the new
//! score in constant time, and the order is put right where somebody looks at it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::time::{Duration, Instant};

use ::lru::LruCache;

use super::LoadCost;

/// Time that counts as one turnover when nothing is loaded.
const CALM_TURNOVER: Duration = Duration::from_secs(3600);
/// How many archives are remembered that are not resident.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
/// Loads below this are alike: what a request notices at all.
const MIN_SECONDS: f64 = 0.001;
/// Sizes below this are alike: a page.
const MIN_BYTES: u64 = 4096;
/// Uses within this share of what one load moves the clock are not counted again.
const SAME_MOMENT: f64 = 0.1;

/// Resident keys by score, and what is known of others.
///
/// Invariant: each resident key stands in `order` once, at its `place`, whose score is its own or an earlier, lower one.
pub(super) struct Cost<K> {
    resident: HashMap<K, Resident>,
    order: BTreeMap<Place, K>,
    departed: LruCache<K, Known>,
    /// Turnovers since the beginning.
    clock: f64,
    read_at: Option<Instant>,
    next_serial: u64,
}

struct Resident {
    known: Known,
    bytes: u64,
    place: Place,
}

/// What outlasts a departure.
#[derive(Clone, Copy)]
struct Known {
    /// log2 of the weighted sum of clock time in which it was used.
    log_chance: f64,
    /// The clock when a use was last counted.
    counted: f64,
    seconds: f64,
}

/// A score, and what tells equal ones apart: earlier loads go first.
#[derive(Clone, Copy, PartialEq)]
struct Place(f64, u64);

impl Eq for Place {}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

impl Resident {
    fn score(&self) -> f64 {
        self.known.log_chance + self.known.seconds.max(MIN_SECONDS).log2() - (self.bytes.max(MIN_BYTES) as f64).log2()
    }
}

impl<K: Clone + Eq + Hash> Cost<K> {
    pub(super) fn new() -> Self {
        Cost {
            resident: HashMap::new(),
            order: BTreeMap::new(),
            departed: LruCache::new(REMEMBERED),
            clock: 0.0,
            read_at: None,
            next_serial: 0,
        }
    }

    pub(super) fn loaded(&mut self, key: K, load: LoadCost, now: Instant) {
        let known = self.take(&key).or_else(|| self.departed.pop(&key));
        self.read_clock(now);
        let step = 1.0 / (self.resident.len() + 1) as f64;
        self.clock += step;
        let clock = self.clock;
        let mut known = match known {
            Some(known) => Known { seconds: (known.seconds + load.seconds) / 2.0, ..known },
            None => Known { log_chance: f64::NEG_INFINITY, counted: f64::NEG_INFINITY, seconds: load.seconds },
        };
        known.count(clock, step);
        let mut resident = Resident { known, bytes: load.bytes, place: Place(0.0, self.next_serial) };
        self.next_serial += 1;
        resident.place.0 = resident.score();
        self.order.insert(resident.place, key.clone());
        self.resident.insert(key, resident);
    }

    /// It has another size and another load time, which is no use of it.
    pub(super) fn renewed(&mut self, key: &K, load: LoadCost) {
        let Some(resident) = self.resident.get_mut(key) else { return };
        self.order.remove(&resident.place);
        resident.bytes = load.bytes;
        resident.known.seconds = f64::midpoint(resident.known.seconds, load.seconds);
        resident.place.0 = resident.score();
        self.order.insert(resident.place, key.clone());
    }

    pub(super) fn used(&mut self, key: &K, now: Instant) {
        self.read_clock(now);
        let (clock, step) = (self.clock, self.step());
        if let Some(resident) = self.resident.get_mut(key) {
            resident.known.count(clock, step);
        }
    }

    pub(super) fn left(&mut self, key: &K) {
        if let Some(known) = self.take(key) {
            self.departed.put(key.clone(), known);
        }
    }

    pub(super) fn in_order(&mut self) -> impl Iterator<Item = K> + '_ {
        let mut after = Bound::Unbounded;
        std::iter::from_fn(move || {
            let (place, key) = self.first_settled(after)?;
            after = Bound::Excluded(place);
            Some(key)
        })
    }

    /// The first key behind `after` that stands where it belongs; those before it that do not are put there.
    fn first_settled(&mut self, after: Bound<Place>) -> Option<(Place, K)> {
        loop {
            let (place, key) = self.order.range((after, Bound::Unbounded)).next()?;
            let (place, key) = (*place, key.clone());
            let resident = self.resident.get_mut(&key).expect("invariant: what is in order is resident");
            let score = resident.score();
            if score <= place.0 {
                return Some((place, key));
            }
            resident.place = Place(score, place.1);
            self.order.remove(&place);
            self.order.insert(resident.place, key);
        }
    }

    fn take(&mut self, key: &K) -> Option<Known> {
        let resident = self.resident.remove(key)?;
        self.order.remove(&resident.place);
        Some(resident.known)
    }

    /// What one use covers of the clock's time at most: as far as one load moves it.
    fn step(&self) -> f64 {
        1.0 / self.resident.len().max(1) as f64
    }

    fn read_clock(&mut self, now: Instant) {
        let passed = self.read_at.map_or(Duration::ZERO, |read_at| now.saturating_duration_since(read_at));
        self.clock += passed.as_secs_f64() / CALM_TURNOVER.as_secs_f64();
        self.read_at = Some(self.read_at.map_or(now, |read_at| read_at.max(now)));
    }
}

impl Known {
    /// Counts a use: it covers the clock's time since the last one, one step at most.
    fn count(&mut self, clock: f64, step: f64) {
        let covered = (clock - self.counted).min(step);
        if covered < step * SAME_MOMENT {
            return;
        }
        self.counted = clock;
        self.log_chance = log2_of_sum(self.log_chance, clock + covered.log2());
    }
}

/// log2(2^a + 2^b)
fn log2_of_sum(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    high + (1.0 + (low - high).exp2()).log2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(bytes: u64, seconds: f64) -> LoadCost {
        LoadCost { bytes, seconds }
    }

    #[test]
    fn load_seconds_per_byte_decide_among_equals() {
        let (mut cost, now) = (Cost::new(), Instant::now());
        cost.loaded("quick", load(1 << 20, 0.1), now);
        cost.loaded("slow", load(1 << 20, 10.0), now);
        cost.loaded("slow and large", load(1 << 30, 10.0), now);
        assert_eq!(cost.in_order().collect::<Vec<_>>(), ["slow and large", "quick", "slow"]);
    }

    #[test]
    fn what_was_used_long_ago_falls_behind_whatever_it_costs() {
        let (mut cost, now) = (Cost::new(), Instant::now());
        cost.loaded("dear", load(1 << 20, 100.0), now);
        (0..1_000_000).for_each(|_| cost.used(&"dear", now));
        cost.loaded("cheap", load(1 << 20, 1.0), now);
        assert_eq!(cost.in_order().next(), Some("cheap"));
        let later = now + 8 * CALM_TURNOVER;
        cost.used(&"cheap", later);
        assert_eq!(cost.in_order().next(), Some("dear"), "2^-8 × 100 is less than 1");
    }

    #[test]
    fn what_comes_back_is_remembered() {
        let (mut cost, now) = (Cost::new(), Instant::now());
        ["a", "b", "c"].into_iter().for_each(|key| cost.loaded(key, load(1 << 20, 100.0), now));
        for _ in 0..4 {
            cost.loaded("regular", load(1 << 20, 1.0), now);
            cost.left(&"regular");
        }
        cost.loaded("regular", load(1 << 20, 1.0), now);
        cost.loaded("new", load(1 << 20, 1.0), now);
        assert_eq!(cost.in_order().next(), Some("new"));
    }

    #[test]
    fn scores_stay_finite_for_years() {
        let (mut cost, mut now) = (Cost::new(), Instant::now());
        for turn in 0..200_000u32 {
            now += Duration::from_secs(600);
            cost.loaded(turn % 3, load(0, 0.0), now);
        }
        assert_eq!(cost.in_order().collect::<Vec<_>>(), [0, 1, 2].map(|nth| (200_000 + nth) % 3));
        assert!(cost.resident.values().all(|resident| resident.score().is_finite()));
    }
}

//! Which archive is worth least: eviction policies behind one interface. Pure: a policy is told what happens and asked for
//! an order; it evicts nothing and knows no clock.

mod cost;
mod lru;
mod s3_fifo;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::Hash;
use std::time::Instant;

use self::cost::Cost;
use self::lru::Lru;
use self::s3_fifo::S3Fifo;

/// How what leaves memory first is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// What was used least recently goes first.
    #[default]
    Lru,
    /// What is used only once goes soon, what was used several times stays: three queues, after "FIFO queues are all you
    /// need for cache eviction" (SOSP '23). Withstands scans.
    S3Fifo,
    /// What saves the fewest load seconds per byte goes first: load seconds × chance of reuse ÷ bytes.
    Cost,
}

impl EvictionPolicy {
    /// Every policy.
    pub const ALL: [EvictionPolicy; 3] = [EvictionPolicy::Lru, EvictionPolicy::S3Fifo, EvictionPolicy::Cost];

    /// As settings and tables name it.
    pub const fn name(self) -> &'static str {
        match self {
            EvictionPolicy::Lru => "lru",
            EvictionPolicy::S3Fifo => "s3-fifo",
            EvictionPolicy::Cost => "cost",
        }
    }
}

impl fmt::Display for EvictionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a load took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadCost {
    /// Bytes that are held now, on all devices together.
    pub bytes: u64,
    /// How long loading took, in seconds, waiting excluded.
    pub seconds: f64,
}

/// Why something left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Others needed the room; it may well come back.
    Evicted,
    /// It was asked to go, replaced, or broken.
    Removed,
}

/// What is resident, in the order in which it should leave.
///
/// Invariant: a key is ranked exactly from its `loaded` to its `left`. `used` is called for every request, under a lock that
/// all requests share, and takes constant time; the other calls come with loads and evictions.
pub struct Ranking<K>(Ranked<K>);

enum Ranked<K> {
    Lru(Lru<K>),
    S3Fifo(S3Fifo<K>),
    Cost(Cost<K>),
}

impl<K: Clone + Eq + Hash> Ranking<K> {
    /// Nothing is resident yet.
    pub fn new(policy: EvictionPolicy) -> Self {
        Ranking(match policy {
            EvictionPolicy::Lru => Ranked::Lru(Lru::new()),
            EvictionPolicy::S3Fifo => Ranked::S3Fifo(S3Fifo::new()),
            EvictionPolicy::Cost => Ranked::Cost(Cost::new()),
        })
    }

    /// `key` is resident from now on. A key that is resident already has been loaded anew.
    pub fn loaded(&mut self, key: K, load: LoadCost, now: Instant) {
        match &mut self.0 {
            Ranked::Lru(lru) => lru.loaded(key),
            Ranked::S3Fifo(s3_fifo) => s3_fifo.loaded(key, load.bytes),
            Ranked::Cost(cost) => cost.loaded(key, load, now),
        }
    }

    /// [`Ranking::loaded`] although nobody asked for `key`: it leaves before what is resident already, as far as the policy
    /// goes by order.
    pub fn loaded_unasked(&mut self, key: K, load: LoadCost, now: Instant) {
        match &mut self.0 {
            Ranked::Lru(lru) => lru.loaded_last(key),
            Ranked::S3Fifo(s3_fifo) => s3_fifo.loaded_last(key, load.bytes),
            Ranked::Cost(cost) => cost.loaded(key, load, now),
        }
    }

    /// Another version of `key`, which is resident, has taken its place, and nobody asked for that: it stands where it stood.
    pub fn renewed(&mut self, key: &K, load: LoadCost) {
        match &mut self.0 {
            Ranked::Lru(_) => {}
            Ranked::S3Fifo(s3_fifo) => s3_fifo.renewed(key, load.bytes),
            Ranked::Cost(cost) => cost.renewed(key, load),
        }
    }

    /// A request used `key`; one that is not resident is passed over.
    pub fn used(&mut self, key: &K, now: Instant) {
        match &mut self.0 {
            Ranked::Lru(lru) => lru.used(key),
            Ranked::S3Fifo(s3_fifo) => s3_fifo.used(key),
            Ranked::Cost(cost) => cost.used(key, now),
        }
    }

    /// `key` is resident no longer; one that was not is passed over.
    pub fn left(&mut self, key: &K, why: Departure) {
        match &mut self.0 {
            Ranked::Lru(lru) => lru.left(key),
            Ranked::S3Fifo(s3_fifo) => s3_fifo.left(key, why),
            Ranked::Cost(cost) => cost.left(key),
        }
    }

    /// Every resident key, the one that should leave first at the head. Lazy: who takes a few pays for a few (but for
    /// S3-FIFO, which lines all of them up). Asking changes nothing about the answer.
    pub fn in_order(&mut self) -> Box<dyn Iterator<Item = K> + '_> {
        match &mut self.0 {
            Ranked::Lru(lru) => Box::new(lru.in_order()),
            Ranked::S3Fifo(s3_fifo) => Box::new(s3_fifo.in_order()),
            Ranked::Cost(cost) => Box::new(cost.in_order()),
        }
    }
}

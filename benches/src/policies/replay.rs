//! Replays a trace against a policy through the code that decides in the server: [`Ranking`] says who leaves first,
//! [`plan_room`] how many. Loads take no time here: what is compared is the choice alone.

use std::collections::HashMap;
use std::time::Instant;

use inference::{Device, MemoryUsage};
use model_cache::eviction::{Candidate, RoomPlan, plan_room};
use model_cache::policy::{Departure, EvictionPolicy, LoadCost, Ranking};

use super::trace::Trace;

/// What came of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Requests.
    pub requests: usize,
    /// Requests whose archive was resident.
    pub hits: usize,
    /// Seconds that went into loading.
    pub load_seconds: f64,
}

impl Outcome {
    /// Hits per request.
    pub fn hit_ratio(&self) -> f64 {
        self.hits as f64 / self.requests.max(1) as f64
    }

    /// Load seconds per 1,000 requests.
    pub fn load_seconds_per_1000(&self) -> f64 {
        self.load_seconds * 1000.0 / self.requests.max(1) as f64
    }
}

/// Replays `trace` with room for `budget` bytes; what the first `warm_up` requests do is not counted.
pub fn replay(trace: &Trace, policy: EvictionPolicy, budget: u64, warm_up: usize) -> Outcome {
    let (mut cache, begin) = (Cache::new(policy, budget), Instant::now());
    let mut outcome = Outcome::default();
    for (index, access) in trace.accesses.iter().enumerate() {
        let archive = &trace.archives[access.archive];
        let now = begin + access.at;
        let is_hit = cache.resident.contains_key(&access.archive);
        if is_hit {
            cache.ranking.used(&access.archive, now);
        } else {
            cache.load(access.archive, LoadCost { bytes: archive.bytes, seconds: archive.load_seconds }, now);
        }
        if index >= warm_up {
            outcome.requests += 1;
            outcome.hits += usize::from(is_hit);
            outcome.load_seconds += if is_hit { 0.0 } else { archive.load_seconds };
        }
    }
    outcome
}

struct Cache {
    budget: MemoryUsage,
    used: MemoryUsage,
    resident: HashMap<usize, MemoryUsage>,
    ranking: Ranking<usize>,
}

impl Cache {
    fn new(policy: EvictionPolicy, budget: u64) -> Self {
        let (budget, used) = (MemoryUsage::on(Device::Host, budget), MemoryUsage::default());
        Cache { budget, used, resident: HashMap::new(), ranking: Ranking::new(policy) }
    }

    fn load(&mut self, archive: usize, load: LoadCost, now: Instant) {
        let need = MemoryUsage::on(Device::Host, load.bytes);
        let Cache { budget, used, resident, ranking } = self;
        let candidate = |key: usize| Candidate { key, usage: resident[&key].clone(), pinned: false };
        match plan_room(budget, used, &need, ranking.in_order().map(candidate)) {
            RoomPlan::Fits => {}
            RoomPlan::Evict(victims) => victims.iter().for_each(|victim| self.evict(*victim)),
            // It is served and goes: nothing else could be done.
            RoomPlan::Blocked(_) | RoomPlan::Never(_) => return,
        }
        self.used.add_all(&need);
        self.resident.insert(archive, need);
        self.ranking.loaded(archive, load, now);
    }

    fn evict(&mut self, victim: usize) {
        if let Some(usage) = self.resident.remove(&victim) {
            self.used.remove_all(&usage);
            self.ranking.left(&victim, Departure::Evicted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::generate::{cyclic, nightly_scan, zipf, zipf_shifting};

    #[test]
    fn a_replay_is_the_same_every_time_and_more_memory_never_hurts_much() {
        for generate in [zipf, zipf_shifting, nightly_scan, cyclic] {
            let trace = generate(7, 10_000);
            for policy in EvictionPolicy::ALL {
                let with = |part: u64| replay(&trace, policy, trace.bytes() / part, 1000);
                assert_eq!(with(10), with(10), "{policy}");
                assert!(with(2).hit_ratio() >= with(10).hit_ratio(), "{policy}");
                let all = replay(&trace, policy, trace.bytes(), 1000);
                assert!(all.requests - all.hits <= trace.archives.len(), "{policy}: each is loaded once at most");
            }
        }
    }

    #[test]
    fn least_recently_used_never_hits_in_a_circle_and_others_do_better_where_they_should() {
        let (circle, scan) = (cyclic(7, 10_000), nightly_scan(7, 60_000));
        let with = |trace: &Trace, policy| replay(trace, policy, trace.bytes() / 4, 2000);
        assert_eq!(with(&circle, EvictionPolicy::Lru).hits, 0);
        let [lru, s3_fifo, cost] = EvictionPolicy::ALL.map(|policy| with(&scan, policy));
        assert!(s3_fifo.hit_ratio() > lru.hit_ratio(), "a scan drives out less");
        assert!(cost.load_seconds < lru.load_seconds, "that is what it is for");
    }
}

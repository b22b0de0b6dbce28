//! What holds for every policy: exactly what is resident is ranked, each once, whatever happens in which order.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// What can happen to a ranking.
#[derive(Clone, Debug)]
enum Event {
    Load {
        key: u8,
        bytes: u64,
        millis: u32,
    },
    LoadUnasked {
        key: u8,
        bytes: u64,
    },
    Use(u8),
    Leave {
        key: u8,
        evicted: bool,
    },
    /// Takes the `nth` in order, as when those before it are pinned.
    Evict {
        nth: usize,
    },
    Wait {
        seconds: u32,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0u8..12, 0u64..100, 0u32..10_000).prop_map(|(key, bytes, millis)| Event::Load { key, bytes, millis }),
        1 => (0u8..12, 0u64..100).prop_map(|(key, bytes)| Event::LoadUnasked { key, bytes }),
        6 => (0u8..12).prop_map(Event::Use),
        1 => (0u8..12, any::<bool>()).prop_map(|(key, evicted)| Event::Leave { key, evicted }),
        3 => (0usize..4).prop_map(|nth| Event::Evict { nth }),
        1 => (0u32..100_000).prop_map(|seconds| Event::Wait { seconds }),
    ]
}

#[test]
fn what_nobody_asked_for_leaves_before_the_rest_in_the_order_in_which_it_came() {
    for policy in [EvictionPolicy::Lru, EvictionPolicy::S3Fifo] {
        let (mut ranking, now) = (Ranking::new(policy), Instant::now());
        let load = LoadCost { bytes: 1 << 20, seconds: 1.0 };
        ranking.loaded(0, load, now);
        (1..4).for_each(|key| ranking.loaded_unasked(key, load, now));
        ranking.loaded(4, load, now);
        assert_eq!(ranking.in_order().collect::<Vec<u8>>(), [3, 2, 1, 0, 4], "{policy}");
    }
}

proptest! {
    #[test]
    fn the_order_covers_exactly_what_is_resident(events in proptest::collection::vec(event(), 0..200)) {
        for policy in EvictionPolicy::ALL {
            let (mut ranking, mut resident, mut now) = (Ranking::new(policy), BTreeSet::new(), Instant::now());
            for event in &events {
                match *event {
                    Event::Load { key, bytes, millis } => {
                        ranking.loaded(key, LoadCost { bytes, seconds: f64::from(millis) / 1e3 }, now);
                        resident.insert(key);
                    }
                    Event::LoadUnasked { key, bytes } => {
                        ranking.loaded_unasked(key, LoadCost { bytes, seconds: 1.0 }, now);
                        resident.insert(key);
                    }
                    Event::Use(key) => ranking.used(&key, now),
                    Event::Leave { key, evicted } => {
                        ranking.left(&key, if evicted { Departure::Evicted } else { Departure::Removed });
                        resident.remove(&key);
                    }
                    Event::Evict { nth } => {
                        let victim = ranking.in_order().nth(nth);
                        if let Some(victim) = victim {
                            ranking.left(&victim, Departure::Evicted);
                            prop_assert!(resident.remove(&victim), "{policy} evicts what is not there");
                        }
                    }
                    Event::Wait { seconds } => now += Duration::from_secs(seconds.into()),
                }
                let order: Vec<u8> = ranking.in_order().collect();
                prop_assert_eq!(order.len(), resident.len(), "{} loses or doubles a key", policy);
                prop_assert_eq!(&order.iter().copied().collect::<BTreeSet<_>>(), &resident);
                prop_assert_eq!(ranking.in_order().collect::<Vec<_>>(), order, "asking changes nothing");
            }
        }
    }

    /// Whatever a policy thinks of the past: what is used over and over while others come and go once stays, unless it is all
    /// that there is.
    #[test]
    fn what_is_in_constant_use_stays(capacity in 3usize..12, scanned in 20usize..60) {
        for policy in EvictionPolicy::ALL {
            let (mut ranking, now) = (Ranking::new(policy), Instant::now());
            let load = LoadCost { bytes: 1 << 20, seconds: 1.0 };
            let mut resident = 0;
            for key in std::iter::once(0).chain(1..scanned) {
                if resident == capacity {
                    let victim = ranking.in_order().next().expect("full");
                    prop_assert_ne!(victim, 0, "{} evicts what is in use", policy);
                    ranking.left(&victim, Departure::Evicted);
                    resident -= 1;
                }
                ranking.loaded(key, load, now);
                resident += 1;
                (0..3).for_each(|_| ranking.used(&0, now));
            }
        }
    }
}

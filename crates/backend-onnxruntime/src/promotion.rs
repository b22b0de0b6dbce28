//! Decides whether a model whose weights are in its file should have weights of its own: when the time that its runs take is
//! worth it. Pure.
//!
//! It is the question whether to rent or to buy, answered as usual: buy once the rent paid comes to the price. The rent is
//! the part of its run time that a model loses for want of repacked weights, the price is the time that making them takes.

use std::time::{Duration, Instant};

/// What counts of use that was so long ago is one half.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// The part of its run time that a model is taken to lose, until both have been measured.
const ASSUMED_LOSS: f64 = 0.25;
/// Bytes of weights that are read, copied and repacked in a second.
const BYTES_PER_SECOND: f64 = 300e6;
/// Below this part of the use that it was promoted for, a model goes back. Far below, so that it does not go to and fro.
const KEPT_FOR: f64 = 1.0 / 16.0;
/// The least part of its run time that a promotion must save.
const WORTHWHILE: f64 = 0.05;

/// How much a model runs: seconds of runs, of which old ones count less and less.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecentUse {
    seconds: f64,
    as_of: Instant,
}

impl RecentUse {
    pub(crate) fn none(now: Instant) -> Self {
        RecentUse { seconds: 0.0, as_of: now }
    }

    pub(crate) fn add(&mut self, took: Duration, now: Instant) {
        *self = RecentUse { seconds: self.seconds(now) + took.as_secs_f64(), as_of: self.as_of.max(now) };
    }

    /// What of it counts by now.
    pub(crate) fn seconds(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.as_of).as_secs_f64();
        self.seconds * (-age / HALF_LIFE.as_secs_f64()).exp2()
    }
}

/// Seconds of use for which weights of its own are worth making for a model of this size.
fn enough(weight_bytes: u64) -> f64 {
    weight_bytes as f64 / BYTES_PER_SECOND / ASSUMED_LOSS
}

/// Whether a model that is mapped should have weights of its own.
pub(crate) fn should_grow(recent: f64, weight_bytes: u64) -> bool {
    recent >= enough(weight_bytes)
}

/// Whether a model that has weights of its own should be mapped again.
pub(crate) fn should_shrink(recent: f64, weight_bytes: u64) -> bool {
    recent < KEPT_FOR * enough(weight_bytes)
}

/// Whether weights of its own make a model faster, from the times that the same request took both ways.
pub(crate) fn is_worthwhile(mapped: Duration, private: Duration) -> bool {
    private.as_secs_f64() <= (1.0 - WORTHWHILE) * mapped.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn use_counts_half_after_each_half_life() {
        let start = Instant::now();
        let mut recent = RecentUse::none(start);
        recent.add(Duration::from_secs(4), start);
        assert_eq!(recent.seconds(start), 4.0);
        assert!((recent.seconds(start + 2 * HALF_LIFE) - 1.0).abs() < 1e-9);
        recent.add(Duration::from_secs(1), start + 2 * HALF_LIFE);
        assert!((recent.seconds(start + 3 * HALF_LIFE) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_model_of_40_mib_grows_after_half_a_second_of_runs_and_shrinks_after_minutes_of_none() {
        assert!(!should_grow(0.5, 40 * MIB) && should_grow(0.6, 40 * MIB));
        let start = Instant::now();
        let mut recent = RecentUse::none(start);
        recent.add(Duration::from_millis(600), start);
        assert!(!should_shrink(recent.seconds(start + 3 * HALF_LIFE), 40 * MIB));
        assert!(should_shrink(recent.seconds(start + 5 * HALF_LIFE), 40 * MIB));
    }

    #[test]
    fn a_promotion_that_saves_next_to_nothing_is_not_worth_its_memory() {
        let of = Duration::from_micros;
        assert!(is_worthwhile(of(100), of(95)) && !is_worthwhile(of(100), of(96)) && !is_worthwhile(of(100), of(200)));
    }

    proptest! {
        #[test]
        fn what_is_enough_to_grow_is_enough_to_stay(recent in 0.0..1e6f64, bytes in 0u64..1 << 40) {
            prop_assert!(!(should_grow(recent, bytes) && should_shrink(recent, bytes)));
        }

        #[test]
        fn use_is_never_more_than_was_run(steps in proptest::collection::vec((0u64..100, 0u64..1000), 0..50)) {
            let (mut now, mut total) = (Instant::now(), 0.0);
            let mut recent = RecentUse::none(now);
            for (wait, took) in steps {
                now += Duration::from_secs(wait);
                recent.add(Duration::from_millis(took), now);
                total += took as f64 / 1e3;
                prop_assert!(recent.seconds(now) <= total + 1e-6);
            }
        }
    }
}

//! How long bytes take, learned from what they took. Pure.

use std::time::Duration;

/// What counts on top of each archive's own bytes, for what takes time however small it is: round trips, opening files.
const FIXED: f64 = (1u64 << 20) as f64;
/// How much of what was learned before counts after one more: the last five loads or so decide.
const KEPT: f64 = 0.8;
/// How many times as large as what was learned something may be for that to say what it takes. What small archives take is mostly
/// not their bytes.
const FARTHEST: f64 = 4.0;

/// Seconds per byte, the last loads counting most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    seconds: f64,
    bytes: f64,
    /// The largest of the last ones.
    largest: f64,
}

impl Rate {
    /// So many bytes took so long.
    pub(super) fn learn(&mut self, bytes: u64, time: Duration) {
        self.seconds = self.seconds * KEPT + time.as_secs_f64();
        self.bytes = self.bytes * KEPT + bytes as f64 + FIXED;
        self.largest = (self.largest * KEPT).max(bytes as f64 + FIXED);
    }

    /// What so many bytes take; `None` before anything was learned that is about as large.
    pub(super) fn time(&self, bytes: u64) -> Option<Duration> {
        let bytes = bytes as f64 + FIXED;
        if bytes > FARTHEST * self.largest {
            return None;
        }
        Duration::try_from_secs_f64(self.seconds / self.bytes * bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_archives_say_nothing_about_large_ones() {
        let mut rate = Rate::default();
        (0..20).for_each(|_| rate.learn(1000, Duration::from_millis(50)));
        assert_eq!(rate.time(100 << 20), None, "50 ms are not what 1000 bytes take");
        let small = rate.time(2000).expect("known").as_secs_f64();
        assert!((0.05..0.051).contains(&small), "{small}");
        rate.learn(100 << 20, Duration::from_secs(1));
        let large = rate.time(100 << 20).expect("known").as_secs_f64();
        assert!((0.9..1.5).contains(&large), "{large}");
        (0..20).for_each(|_| rate.learn(1000, Duration::from_millis(50)));
        assert_eq!(rate.time(100 << 20), None, "forgotten");
    }

    #[test]
    fn what_changes_is_learned_anew() {
        let mut rate = Rate::default();
        for seconds in [1; 20].into_iter().chain([10; 20]) {
            rate.learn(50 << 20, Duration::from_secs(seconds));
        }
        let time = rate.time(50 << 20).expect("known").as_secs_f64();
        assert!((9.5..=10.0).contains(&time), "{time}");
    }

    proptest! {
        #[test]
        fn lies_between_what_was_seen_and_grows_with_size(
            bytes in 0u64..1 << 45,
            times in proptest::collection::vec(0u64..1 << 40, 1..30),
            more in 0u64..1 << 45,
        ) {
            let mut rate = Rate::default();
            times.iter().for_each(|nanoseconds| rate.learn(bytes, Duration::from_nanos(*nanoseconds)));
            let time = rate.time(bytes).expect("known").as_secs_f64();
            let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
            let (least, most) = (times.iter().min().copied().map(seconds), times.iter().max().copied().map(seconds));
            prop_assert!(time >= least.expect("one") - 1e-6 && time <= most.expect("one") + 1e-6);
            prop_assert!(rate.time(bytes + more).is_none_or(|larger| larger.as_secs_f64() >= time));
        }
    }
}

//! Protection against churn: what has just been loaded stays for as long as its load took, while it is in use. Pure.
//!
//! So the cache never turns over faster than models can load: where more is asked for than fits, each archive serves for at
//! least as long as everybody waited for it, instead of leaving with its first answer. What is not asked for again soon gives
//! its room up early, so that clients that go through many models one after the other lose little.

use std::time::{Duration, Instant};

/// Quicker loads need no protection: little is lost when they have to be repeated.
const MIN_LOAD: Duration = Duration::from_millis(20);
/// Protection ends when nobody used the archive for this part of what its load took.
const IDLE_PART: u32 = 8;

/// When an archive may be evicted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protection {
    /// However much it is used.
    until: Instant,
    /// How long it may be out of use before that.
    patience: Duration,
    last_use: Instant,
}

impl Protection {
    /// For what has just been loaded; lasts no longer than `longest`.
    pub(crate) fn new(load: Duration, longest: Duration, now: Instant) -> Self {
        let length = if load < MIN_LOAD { Duration::ZERO } else { load.min(longest) };
        Protection { until: now + length, patience: length / IDLE_PART, last_use: now }
    }

    /// Somebody uses it.
    pub(crate) fn used(&mut self, now: Instant) {
        self.last_use = now;
    }

    /// When it ends if nobody uses it from now on; `None` once it has ended.
    pub(crate) fn ends(&self, now: Instant) -> Option<Instant> {
        let end = self.until.min(self.last_use + self.patience);
        (end > now).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn lasts_as_long_as_the_load_while_in_use() {
        let start = Instant::now();
        let mut protection = Protection::new(8 * SECOND, 100 * SECOND, start);
        for second in 1..8 {
            assert!(protection.ends(start + second * SECOND - SECOND / 2).is_some(), "in use");
            protection.used(start + second * SECOND);
        }
        assert_eq!(protection.ends(start + 7 * SECOND), Some(start + 8 * SECOND));
        protection.used(start + 8 * SECOND);
        assert_eq!(protection.ends(start + 8 * SECOND), None, "it had its time");
    }

    #[test]
    fn ends_early_for_what_nobody_wants() {
        let start = Instant::now();
        let protection = Protection::new(8 * SECOND, 100 * SECOND, start);
        assert_eq!(protection.ends(start), Some(start + SECOND));
        assert_eq!(protection.ends(start + SECOND), None);
    }

    #[test]
    fn is_bounded_and_not_for_trifles() {
        let start = Instant::now();
        let mut long = Protection::new(800 * SECOND, 8 * SECOND, start);
        long.used(start + 7 * SECOND);
        assert_eq!(long.ends(start + 7 * SECOND), Some(start + 8 * SECOND));
        assert_eq!(Protection::new(Duration::from_millis(5), SECOND, start).ends(start), None);
    }
}

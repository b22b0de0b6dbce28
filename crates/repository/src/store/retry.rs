//! When a request to the store is made again, and when it is given up. Pure: time and chance are arguments.

use std::time::{Duration, Instant};

/// What went wrong with one try, as far as trying again is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The store means it, and would say so again.
    Lasting,
    /// It may have been this one time: no connection, a broken one, silence, an internal error, the wrong bytes.
    Passing,
    /// The store asks for less, and perhaps says how long it wants to be left alone.
    Busy(Option<Duration>),
}

/// How often and how fast one request is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// Tries in a row that may lead nowhere, at least 1.
    pub(crate) tries: u32,
    /// The longest pause after the first of them; twice as long after each further one.
    pub(crate) pause: Duration,
    /// The longest pause at all. A store that wants to be left alone for longer is given up.
    pub(crate) longest_pause: Duration,
}

/// A store that is busy is left alone for so many times longer.
const BUSY_FACTOR: u32 = 5;

impl RetryPolicy {
    /// So many tries, within some seconds.
    pub(crate) fn new(tries: u32) -> Self {
        RetryPolicy { tries, pause: Duration::from_millis(200), longest_pause: Duration::from_secs(10) }
    }

    /// How long to pause before the next try after `failures` in a row, the last of them by `fault`; `None` to give up.
    /// `chance`, between 0 and 1, spreads those who failed together.
    pub(crate) fn pause_after(&self, fault: Fault, failures: u32, chance: f64) -> Option<Duration> {
        if failures >= self.tries {
            return None;
        }
        let (base, least) = match fault {
            Fault::Lasting => return None,
            Fault::Passing => (self.pause, Duration::ZERO),
            Fault::Busy(least) => (self.pause * BUSY_FACTOR, least.unwrap_or_default()),
        };
        if least > self.longest_pause {
            return None;
        }
        let doubled = base.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        let most = doubled.min(self.longest_pause);
        // Between the half and the whole, so that a pause is never next to nothing.
        Some(most.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0).max(least))
    }
}

/// Bounds how many requests of all are made again: when most of them fail, trying each one again would only multiply what
/// the store has to bear.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    left: f64,
    filled: Instant,
}

impl RetryBudget {
    /// So many may be made again at once.
    pub(crate) const CAPACITY: f64 = 100.0;
    /// So many more every second,
    pub(crate) const PER_SECOND: f64 = 1.0;
    /// and for each request that succeeds.
    pub(crate) const PER_SUCCESS: f64 = 0.2;

    pub(crate) fn new(now: Instant) -> Self {
        RetryBudget { left: Self::CAPACITY, filled: now }
    }

    /// Takes one; `false` when none is left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.add(seconds * Self::PER_SECOND);
        let may = self.left >= 1.0;
        self.left -= f64::from(u8::from(may));
        may
    }

    /// A request succeeded.
    pub(crate) fn succeeded(&mut self) {
        self.add(Self::PER_SUCCESS);
    }

    fn add(&mut self, more: f64) {
        self.left = (self.left + more).min(Self::CAPACITY);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let policy = RetryPolicy { tries: 5, pause: SECOND, longest_pause: 3 * SECOND };
        let pauses: Vec<_> = (1..=5).map(|failures| policy.pause_after(Fault::Passing, failures, 1.0)).collect();
        assert_eq!(pauses, [Some(SECOND), Some(2 * SECOND), Some(3 * SECOND), Some(3 * SECOND), None]);
        assert_eq!(policy.pause_after(Fault::Passing, 1, 0.0), Some(SECOND / 2));
        assert_eq!(policy.pause_after(Fault::Lasting, 1, 1.0), None);
        assert_eq!(policy.pause_after(Fault::Passing, u32::MAX, 1.0), None);
    }

    #[test]
    fn a_busy_store_is_left_alone_for_as_long_as_it_says() {
        let policy = RetryPolicy { tries: 5, pause: SECOND / 5, longest_pause: 10 * SECOND };
        assert_eq!(policy.pause_after(Fault::Busy(None), 1, 1.0), Some(SECOND));
        assert_eq!(policy.pause_after(Fault::Busy(Some(7 * SECOND)), 1, 0.0), Some(7 * SECOND));
        assert_eq!(policy.pause_after(Fault::Busy(Some(11 * SECOND)), 1, 0.0), None, "whoever waits is told now");
    }

    proptest! {
        #[test]
        fn pauses_are_bounded(tries in 1..100u32, failures in 1..200u32, chance in 0.0..1.0f64, busy in any::<bool>(), asked in 0..20_000u64) {
            let policy = RetryPolicy::new(tries);
            let asked = Duration::from_millis(asked);
            let fault = if busy { Fault::Busy(Some(asked)) } else { Fault::Passing };
            match policy.pause_after(fault, failures, chance) {
                Some(pause) => {
                    prop_assert!(failures < tries);
                    prop_assert!(pause >= policy.pause / 2 && pause <= policy.longest_pause);
                    prop_assert!(!busy || pause >= asked);
                }
                None => prop_assert!(failures >= tries || busy && asked > policy.longest_pause),
            }
        }

        /// However requests end, retries are no more than the capacity, a fifth of the successes and one a second.
        #[test]
        fn retries_are_bounded(steps in prop::collection::vec((0..3u8, 0..500u64), 0..1000)) {
            let start = Instant::now();
            let (mut budget, mut now) = (RetryBudget::new(start), start);
            let (mut retries, mut successes) = (0, 0);
            for (step, milliseconds) in steps {
                now += Duration::from_millis(milliseconds / 100);
                match step {
                    0 => { budget.succeeded(); successes += 1; }
                    _ => retries += u32::from(budget.take(now)),
                }
                let most = RetryBudget::CAPACITY + f64::from(successes) * RetryBudget::PER_SUCCESS
                    + (now - start).as_secs_f64() * RetryBudget::PER_SECOND;
                prop_assert!(f64::from(retries) <= most + 1e-6);
            }
        }
    }
}

//! A token bucket: how long whoever has received some bytes must wait, so that all together keep to a rate. Pure.

use std::time::{Duration, Instant};

/// Bytes per second, and how far the sum of what was taken is ahead of them.
#[derive(Debug)]
pub(super) struct TokenBucket {
    bytes_per_second: f64,
    /// When all that was taken will have been paid for.
    paid: Instant,
}

/// What may be taken at once after a pause, as the time in which it would come.
const BURST: Duration = Duration::from_millis(100);

impl TokenBucket {
    /// A full one.
    pub(super) fn new(bytes_per_second: u64, now: Instant) -> Self {
        TokenBucket { bytes_per_second: bytes_per_second.max(1) as f64, paid: now }
    }

    /// Takes so many bytes, and says for how long to wait until they are paid for.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let from = now.checked_sub(BURST).map_or(self.paid, |earliest| self.paid.max(earliest));
        self.paid = from + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        self.debt(now)
    }

    /// How long it takes until all that was taken is paid for. Whoever is not urgent waits for that before it takes more.
    pub(super) fn debt(&self, now: Instant) -> Duration {
        self.paid.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever waits as told never gets more than the rate and one burst allow, and loses nothing but bursts.
        #[test]
        fn the_rate_is_kept(rate in 1_000..100_000_000u64, takes in prop::collection::vec((1..1_000_000usize, 0..2_000u64), 1..100)) {
            let start = Instant::now();
            let (mut bucket, mut now, mut bytes, mut idle) = (TokenBucket::new(rate, start), start, 0, Duration::ZERO);
            for (count, pause) in takes {
                let pause = Duration::from_millis(pause);
                now += pause;
                idle += pause;
                now += bucket.take(count, now);
                bytes += count;
                prop_assert_eq!(bucket.debt(now), Duration::ZERO);
                let least = bytes as f64 / rate as f64;
                let took = (now - start).as_secs_f64();
                prop_assert!(took + BURST.as_secs_f64() + 1e-6 >= least, "{} bytes in {} s", bytes, took);
                prop_assert!(took <= least + idle.as_secs_f64() + 1e-3);
            }
        }
    }
}

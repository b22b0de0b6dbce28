//! Remembers for a moment which keys the store does not have, so that a flood of bad names is no flood of questions to it.
//! Pure: `now` is an argument.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use inference::TargetModel;
use lru::LruCache;

/// How many keys are remembered; past it, whatever was asked for longest ago is forgotten.
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).expect("invariant: not zero");

/// Keys that were not there when the store was asked last, and until when that is believed.
pub(crate) struct MissingKeys {
    ttl: Duration,
    until: LruCache<TargetModel, Instant>,
}

impl MissingKeys {
    /// Believes the store for `ttl`; 0 to ask it every time.
    pub(crate) fn new(ttl: Duration) -> Self {
        MissingKeys { ttl, until: LruCache::new(MAX_REMEMBERED) }
    }

    /// Whether the store need not be asked at `now`.
    pub(crate) fn is_missing(&mut self, target: &TargetModel, now: Instant) -> bool {
        let is_missing = self.until.get(target).is_some_and(|until| now < *until);
        if !is_missing {
            self.until.pop(target);
        }
        is_missing
    }

    /// The store did not have it at `now`.
    pub(crate) fn record(&mut self, target: &TargetModel, now: Instant) {
        if !self.ttl.is_zero() {
            self.until.put(target.clone(), now + self.ttl);
        }
    }

    /// The store has it.
    pub(crate) fn forget(&mut self, target: &TargetModel) {
        self.until.pop(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(number: usize) -> TargetModel {
        TargetModel::new(&format!("{number}.tar.gz")).expect("valid")
    }

    #[test]
    fn a_missing_key_is_remembered_for_its_time() {
        let (now, ttl) = (Instant::now(), Duration::from_secs(5));
        let mut missing = MissingKeys::new(ttl);
        assert!(!missing.is_missing(&target(1), now));
        missing.record(&target(1), now);
        assert!(missing.is_missing(&target(1), now + ttl - Duration::from_nanos(1)));
        assert!(!missing.is_missing(&target(2), now));
        assert!(!missing.is_missing(&target(1), now + ttl));
        missing.record(&target(1), now);
        missing.forget(&target(1));
        assert!(!missing.is_missing(&target(1), now));
        let mut off = MissingKeys::new(Duration::ZERO);
        off.record(&target(1), now);
        assert!(!off.is_missing(&target(1), now));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_asked_for_stays() {
        let now = Instant::now();
        let mut missing = MissingKeys::new(Duration::from_secs(5));
        for number in 0..MAX_REMEMBERED.get() + 10 {
            missing.record(&target(number), now);
            assert!(missing.is_missing(&target(0), now));
        }
        assert_eq!(missing.until.len(), MAX_REMEMBERED.get());
        assert!(!missing.is_missing(&target(1), now));
    }
}

//! The order in which archives were used, as times that a file system can keep: it holds whatever the clock does.

use std::time::{Duration, SystemTime};

/// What every file system tells apart that a disk cache is likely to be on.
const STEP: Duration = Duration::from_micros(1);

/// Gives each use a time later than that of every use before. The wall clock's own, except while that has been set back:
/// then the next start would take what was used last for what was not used for longest, and an archive's older version
/// for its newest.
#[derive(Debug)]
pub(super) struct UseOrder {
    last: SystemTime,
}

impl UseOrder {
    /// After every use up to `last`.
    pub(super) fn after(last: SystemTime) -> Self {
        UseOrder { last }
    }

    /// The time to note for a use, when the clock says `now`.
    pub(super) fn next(&mut self, now: SystemTime) -> SystemTime {
        self.last = now.max(self.last + STEP);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_use_is_later_than_the_one_before_however_the_clock_jumps(
            clock in proptest::collection::vec(0_u64..4_000_000_000, 1..50),
            found in 0_u64..4_000_000_000,
        ) {
            let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let mut order = UseOrder::after(at(found));
            let mut last = at(found);
            for now in clock.into_iter().map(at) {
                let noted = order.next(now);
                prop_assert!(noted > last && noted >= now);
                last = noted;
            }
        }
    }
}

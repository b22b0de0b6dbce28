//! Decides when an archive that the store does not have any more counts as deleted. Pure: `now` is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use inference::TargetModel;

/// Archives in memory that the store did not have when it was asked last.
///
/// One answer is not enough. An archive has to be missing for a while; and where nothing shows that the store has any other
/// archive (it may have lost its disks, or be another one under the old address), for long enough that somebody can mend it.
pub(crate) struct Missing {
    /// How long an archive is missing before it counts as deleted.
    pause: Duration,
    /// How long where the store seems to have lost all.
    doubt: Duration,
    since: HashMap<TargetModel, Instant>,
    /// When the store last had what it was asked about.
    last_found: Option<Instant>,
}

/// What follows from an archive being missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is to be asked about again then.
    NotYet(Instant),
    /// The store may have lost all: whether it has another archive decides, or this time.
    Doubtful(Instant),
    /// It is gone.
    Deleted,
}

impl Missing {
    /// Nothing is missing.
    pub(crate) fn new(pause: Duration, doubt: Duration) -> Self {
        Missing { pause, doubt, since: HashMap::new(), last_found: None }
    }

    /// Whether the store did not have an archive when it was asked last.
    pub(crate) fn has(&self, target: &TargetModel) -> bool {
        self.since.contains_key(target)
    }

    /// The store, asked at `now`, has the archive.
    pub(crate) fn found(&mut self, target: &TargetModel, now: Instant) {
        self.since.remove(target);
        self.last_found = self.last_found.max(Some(now));
    }

    /// The archive is of no interest any more.
    pub(crate) fn forget(&mut self, target: &TargetModel) {
        self.since.remove(target);
    }

    /// The store, asked at `now`, does not have the archive. `has_others` says whether there are other archives in memory that
    /// it could be asked about.
    pub(crate) fn missed(&mut self, target: &TargetModel, has_others: bool, now: Instant) -> Verdict {
        let since = *self.since.entry(target.clone()).or_insert(now);
        if now < since + self.pause {
            return Verdict::NotYet(since + self.pause);
        }
        let has_something = self.last_found.is_some_and(|found| found >= since);
        if has_something || !has_others || now >= since + self.doubt {
            return Verdict::Deleted;
        }
        Verdict::Doubtful(since + self.doubt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);
    const DOUBT: Duration = Duration::from_secs(40);

    fn target(number: usize) -> TargetModel {
        TargetModel::new(&format!("{number}.tar.gz")).expect("valid")
    }

    #[test]
    fn an_archive_is_deleted_when_it_stays_missing_and_the_store_has_others() {
        let (mut missing, start) = (Missing::new(PAUSE, DOUBT), Instant::now());
        missing.found(&target(1), start);
        assert_eq!(missing.missed(&target(0), true, start), Verdict::NotYet(start + PAUSE));
        assert_eq!(missing.missed(&target(0), true, start + PAUSE / 2), Verdict::NotYet(start + PAUSE));
        assert_eq!(missing.missed(&target(0), true, start + PAUSE), Verdict::Deleted);
        assert_eq!(missing.missed(&target(2), false, start + PAUSE), Verdict::NotYet(start + PAUSE * 2));
        assert_eq!(
            missing.missed(&target(2), false, start + PAUSE * 2),
            Verdict::Deleted,
            "there is none to compare with"
        );
    }

    #[test]
    fn a_store_that_has_nothing_left_is_not_believed_soon() {
        let (mut missing, start) = (Missing::new(PAUSE, DOUBT), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        missing.found(&target(1), start);
        missing.missed(&target(0), true, later(1));
        assert_eq!(missing.missed(&target(0), true, later(6)), Verdict::Doubtful(later(41)));
        assert_eq!(missing.missed(&target(0), true, later(40)), Verdict::Doubtful(later(41)));
        missing.missed(&target(1), true, later(40));
        assert_eq!(missing.missed(&target(0), true, later(41)), Verdict::Deleted, "it was time enough to mend it");
        assert_eq!(missing.missed(&target(1), true, later(45)), Verdict::Doubtful(later(80)));
        missing.found(&target(2), later(46));
        assert_eq!(missing.missed(&target(1), true, later(46)), Verdict::Deleted, "the store has another");
    }

    #[test]
    fn what_is_there_again_begins_anew() {
        let (mut missing, start) = (Missing::new(PAUSE, DOUBT), Instant::now());
        missing.missed(&target(0), true, start);
        assert!(missing.has(&target(0)));
        missing.found(&target(0), start + PAUSE);
        assert!(!missing.has(&target(0)));
        let again = start + PAUSE * 3;
        assert_eq!(missing.missed(&target(0), true, again), Verdict::NotYet(again + PAUSE));
        missing.forget(&target(0));
        assert!(!missing.has(&target(0)));
    }
}

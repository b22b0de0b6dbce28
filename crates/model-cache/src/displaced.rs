//! What was evicted from a GPU and may be on the host: the archives to load there while they are still of use. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use inference::TargetModel;

/// Later nobody may want it any more.
const OF_USE: Duration = Duration::from_secs(60);
/// How long it is left alone once it was tried.
const PAUSE: Duration = Duration::from_secs(5);
/// More than these, and the earliest are forgotten.
const MOST: usize = 64;

/// The archives, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Displaced(VecDeque<Archive>);

/// An archive that had to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Archive {
    pub(crate) target: TargetModel,
    /// What it took on all devices together.
    bytes: u64,
    at: Instant,
    tried: Option<Instant>,
}

impl Displaced {
    /// An archive of so many bytes had to leave a GPU.
    pub(crate) fn note(&mut self, target: &TargetModel, bytes: u64, now: Instant) {
        self.forget(target);
        self.0.push_back(Archive { target: target.clone(), bytes, at: now, tried: None });
        if self.0.len() > MOST {
            self.0.pop_front();
        }
    }

    /// The latest one that fits into so many bytes, to be tried now; it comes again after a pause unless it is forgotten.
    /// Forgets those that are of no use any more.
    pub(crate) fn next(&mut self, free: u64, now: Instant) -> Option<Archive> {
        self.0.retain(|archive| now.saturating_duration_since(archive.at) <= OF_USE);
        let is_due = |tried: Instant| now.saturating_duration_since(tried) >= PAUSE;
        let fits = |archive: &&mut Archive| archive.bytes <= free && archive.tried.is_none_or(is_due);
        let latest = self.0.iter_mut().rev().find(fits)?;
        latest.tried = Some(now);
        Some(latest.clone())
    }

    /// Nobody wants it any more.
    pub(crate) fn forget(&mut self, target: &TargetModel) {
        self.0.retain(|archive| archive.target != *target);
    }

    /// It needs no other try, unless it has been displaced once more meanwhile.
    pub(crate) fn done(&mut self, tried: &Archive) {
        self.0.retain(|archive| (&archive.target, archive.at) != (&tried.target, tried.at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: usize) -> TargetModel {
        TargetModel::new(&format!("{name}.tar.gz")).expect("valid")
    }

    #[test]
    fn the_latest_that_fits_comes_first_and_old_ones_are_forgotten() {
        let (mut displaced, start) = (Displaced::default(), Instant::now());
        for (name, bytes, second) in [(0, 5, 0), (1, 10, 1), (2, 90, 2), (1, 20, 3), (3, 8, 4)] {
            displaced.note(&target(name), bytes, start + Duration::from_secs(second));
        }
        let now = start + Duration::from_secs(61);
        let mut next = |free| displaced.next(free, now).map(|archive| archive.target);
        assert_eq!(next(50), Some(target(3)));
        assert_eq!(next(50), Some(target(1)), "as it was the last time");
        assert_eq!(next(50), None, "one is too large, one too old");
        assert_eq!(next(100), Some(target(2)), "it had only to wait for room");
        assert_eq!(next(100), None);
    }

    #[test]
    fn what_was_tried_in_vain_comes_again_while_it_is_of_use() {
        let (mut displaced, start) = (Displaced::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        displaced.note(&target(0), 1, start);
        let first = displaced.next(1, at(1)).expect("it fits");
        assert_eq!(displaced.next(1, at(2)), None, "not at once");
        assert_eq!(displaced.next(1, at(6)).map(|archive| archive.at), Some(start), "it is as old as before");
        assert_eq!(displaced.next(1, at(61)), None, "too old");
        displaced.note(&target(0), 1, at(62));
        displaced.done(&first);
        assert!(displaced.next(1, at(62)).is_some(), "it had to leave again");
        displaced.forget(&target(0));
        assert_eq!(displaced.next(1, at(70)), None, "it was unloaded by name");
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (mut displaced, now) = (Displaced::default(), Instant::now());
        (0..200).for_each(|name| displaced.note(&target(name), 1, now));
        let taken = std::iter::from_fn(|| displaced.next(1, now)).count();
        assert_eq!(taken, MOST);
    }
}

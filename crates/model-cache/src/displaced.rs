//! What was evicted from a GPU and may be on the host: the archives to load there while they are still of use. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use inference::TargetModel;

/// Later nobody may want it any more.
const OF_USE: Duration = Duration::from_secs(60);
/// More than these, and the earliest are forgotten.
const MOST: usize = 64;

/// The archives, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Displaced(VecDeque<Archive>);

#[derive(Debug)]
struct Archive {
    target: TargetModel,
    /// What it took on all devices together.
    bytes: u64,
    at: Instant,
}

impl Displaced {
    /// An archive of so many bytes had to leave a GPU.
    pub(crate) fn note(&mut self, target: &TargetModel, bytes: u64, now: Instant) {
        self.forget(target);
        self.0.push_back(Archive { target: target.clone(), bytes, at: now });
        if self.0.len() > MOST {
            self.0.pop_front();
        }
    }

    /// An archive is not wanted in memory any more.
    pub(crate) fn forget(&mut self, target: &TargetModel) {
        self.0.retain(|archive| archive.target != *target);
    }

    /// Takes the latest one that fits into so many bytes; forgets those that are of no use any more.
    pub(crate) fn take(&mut self, free: u64, now: Instant) -> Option<TargetModel> {
        self.0.retain(|archive| now.saturating_duration_since(archive.at) <= OF_USE);
        let latest = self.0.iter().rposition(|archive| archive.bytes <= free)?;
        self.0.remove(latest).map(|archive| archive.target)
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
        assert_eq!(displaced.take(50, now), Some(target(3)));
        assert_eq!(displaced.take(50, now), Some(target(1)), "as it was the last time");
        assert_eq!(displaced.take(50, now), None, "one is too large, one too old");
        assert_eq!(displaced.take(100, now), Some(target(2)), "it had only to wait for room");
        displaced.note(&target(4), 1, now);
        displaced.forget(&target(4));
        assert_eq!(displaced.take(100, now), None);
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (mut displaced, now) = (Displaced::default(), Instant::now());
        (0..200).for_each(|name| displaced.note(&target(name), 1, now));
        let taken = std::iter::from_fn(|| displaced.take(1, now)).count();
        assert_eq!(taken, MOST);
    }
}

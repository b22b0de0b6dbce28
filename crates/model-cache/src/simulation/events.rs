//! What happened in a simulation.

use std::collections::BTreeMap;
use std::time::Duration;

use inference::ErrorKind;

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// Its archive was in memory.
    Found,
    /// It waited for a load.
    Waited,
    /// It waited for a load, which failed, or waited too long.
    Failed(ErrorKind),
    /// The client went away.
    Gone,
}

/// In numbers; equal runs have equal numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Events {
    pub(super) requests: u64,
    pub(super) departures: u64,
    pub(super) removals: u64,
    pub(super) crashes: u64,
    pub(super) budgets: u64,
    /// Archives that moved to a GPU.
    pub(super) moves: u64,
    /// Steps that ended with more held than a budget that had shrunk.
    pub(super) over_budget: u64,
    /// What must never happen, and did.
    pub(super) wrong: Vec<String>,
    found: u64,
    waited: u64,
    gone: u64,
    failed: BTreeMap<&'static str, u64>,
    /// Of when requests ended.
    digest: u64,
}

impl Events {
    /// A request ended, so long after the beginning.
    pub(super) fn ended(&mut self, how: End, at: Duration) {
        match how {
            End::Found => self.found += 1,
            End::Waited => self.waited += 1,
            End::Gone => self.gone += 1,
            End::Failed(kind) => *self.failed.entry(kind.name()).or_default() += 1,
        }
        self.digest = (self.digest ^ at.as_micros() as u64).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
    }

    /// Every request ended once, and everything that can happen did: a run that never came to the point shows nothing.
    pub(super) fn assert_complete(&self, steps: u64) {
        let ends = self.found + self.waited + self.gone + self.failed.values().sum::<u64>();
        assert_eq!(self.requests, ends, "{self:?}");
        let often = [self.requests, self.found, self.waited, self.departures];
        assert!(often.iter().all(|count| *count > steps / 100), "{self:?}");
        let seldom = [self.gone, self.removals, self.crashes, self.budgets, self.moves, self.over_budget];
        assert!(seldom.iter().all(|count| *count > 0), "{self:?}");
        for kind in [ErrorKind::NoRoom, ErrorKind::Internal, ErrorKind::DeadlineExceeded, ErrorKind::Overloaded] {
            assert!(self.failed.contains_key(kind.name()), "{kind:?} never happened: {self:?}");
        }
    }
}

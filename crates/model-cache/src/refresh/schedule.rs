//! Decides when the store is asked about which archive in memory: each once in a window, evenly spread over it. Pure: `now`
//! is an argument.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use inference::TargetModel;

/// The fractional part of the golden ratio: its multiples, modulo 1, lie evenly however many there are.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// When each archive is due.
///
/// An archive keeps its place in the window for as long as it is tracked and nothing is wrong with it. Archives that came
/// together are due at different times, so that a start or a mass change is not felt again in every window.
pub(crate) struct Schedule {
    window: Duration,
    entries: HashMap<TargetModel, Entry>,
    /// Those that are not being checked, the next one first.
    queue: BTreeSet<(Instant, TargetModel)>,
    places_given: u32,
    round: u64,
}

/// What a call of [`Schedule::track`] has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tracked {
    /// Archives that were not tracked before.
    pub(crate) came: Vec<TargetModel>,
    /// Those that were, and are not tracked any more.
    pub(crate) gone: Vec<TargetModel>,
}

struct Entry {
    due: Instant,
    /// Where in a window, from 0 to 1.
    place: f64,
    /// When that is, in some window.
    turn: Instant,
    is_being_checked: bool,
    /// The last call of [`Schedule::track`] that had it.
    round: u64,
}

impl Schedule {
    /// Nothing is tracked yet. `window` is more than nothing.
    pub(crate) fn new(window: Duration) -> Self {
        Schedule { window, entries: HashMap::new(), queue: BTreeSet::new(), places_given: 0, round: 0 }
    }

    /// Tracks exactly these archives, each with the time of the store's last word on it.
    pub(crate) fn track(
        &mut self,
        archives: impl IntoIterator<Item = (TargetModel, Option<Instant>)>,
        now: Instant,
    ) -> Tracked {
        self.round += 1;
        let mut came = Vec::new();
        for (target, confirmed) in archives {
            match self.entries.get_mut(&target) {
                Some(entry) => entry.round = self.round,
                None => {
                    came.push(target.clone());
                    self.add(target, confirmed, now);
                }
            }
        }
        let round = self.round;
        let gone = self.entries.iter().filter(|(_, entry)| entry.round != round);
        let gone: Vec<TargetModel> = gone.map(|(target, _)| target.clone()).collect();
        for target in &gone {
            if let Some(entry) = self.entries.remove(target) {
                self.queue.remove(&(entry.due, target.clone()));
            }
        }
        Tracked { came, gone }
    }

    fn add(&mut self, target: TargetModel, confirmed: Option<Instant>, now: Instant) {
        self.places_given = self.places_given.wrapping_add(1);
        let place = (f64::from(self.places_given) * GOLDEN).fract();
        // What the store said some time ago counts from then on; what it has just said need not be asked again soon.
        let since = confirmed.unwrap_or(now).min(now);
        let due = (since + late(self.window, place)).max(now);
        let turn = now + self.window.mul_f64(place);
        self.queue.insert((due, target.clone()));
        self.entries.insert(target, Entry { due, place, turn, is_being_checked: false, round: self.round });
    }

    /// Takes up to `limit` archives that are due at `now`, the longest overdue first. Each counts as being checked until
    /// [`Schedule::checked`].
    pub(crate) fn take_due(&mut self, now: Instant, limit: usize) -> Vec<TargetModel> {
        let mut taken = Vec::new();
        while taken.len() < limit && self.next_due().is_some_and(|due| due <= now) {
            let Some((_, target)) = self.queue.pop_first() else { break };
            self.entries.get_mut(&target).into_iter().for_each(|entry| entry.is_being_checked = true);
            taken.push(target);
        }
        taken
    }

    /// The check of an archive is over; it is due again at its place in the next window.
    pub(crate) fn checked(&mut self, target: &TargetModel, now: Instant) {
        let Some(entry) = self.entries.get_mut(target) else { return };
        if !entry.is_being_checked {
            // It left and came back during the check, and has got a new place.
            return;
        }
        entry.is_being_checked = false;
        while entry.turn <= now {
            entry.turn += self.window;
        }
        entry.due = entry.turn;
        self.queue.insert((entry.due, target.clone()));
    }

    /// The check of an archive is over, and it is due again at a time of its own.
    pub(crate) fn check_again(&mut self, target: &TargetModel, due: Instant) {
        let Some(entry) = self.entries.get_mut(target).filter(|entry| entry.is_being_checked) else { return };
        entry.is_being_checked = false;
        entry.due = due;
        self.queue.insert((due, target.clone()));
    }

    /// The store, asked about everything at `asked`, has confirmed an archive. It is due again late in the window from then on,
    /// so that another word of that kind can come before.
    pub(crate) fn settled(&mut self, target: &TargetModel, asked: Instant) {
        let Some(entry) = self.entries.get_mut(target).filter(|entry| !entry.is_being_checked) else { return };
        let due = asked + late(self.window, entry.place);
        if due > entry.due {
            self.queue.remove(&(entry.due, target.clone()));
            entry.due = due;
            self.queue.insert((due, target.clone()));
        }
    }

    /// How many archives are tracked.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When the next archive is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }
}

/// A place in the last third of a window.
fn late(window: Duration, place: f64) -> Duration {
    window.mul_f64((2.0 + place) / 3.0)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;

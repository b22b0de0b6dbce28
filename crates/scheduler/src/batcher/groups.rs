//! Sorts the requests that wait into batches that could run, while they are walked in the order of service; pure.

use std::collections::HashMap;
use std::time::Instant;

use super::pace::{Gathered, Pace};
use super::signature::Signature;
use super::{Candidate, Place, Rules};

/// Batches that could run, in the order in which their first requests would be served.
pub(super) struct Groups<'a> {
    rules: &'a Rules,
    pace: Option<&'a Pace>,
    by_signature: HashMap<&'a Signature, usize>,
    groups: Vec<Group>,
}

struct Group {
    places: Vec<Place>,
    rows: u32,
    /// How many of them make up the largest preferred size that was met.
    preferred: Option<usize>,
    /// It has enough rows, or whoever is next does not fit; smaller ones must not overtake that one.
    closed: bool,
    oldest: Instant,
    latest: Instant,
}

impl<'a> Groups<'a> {
    pub(super) fn new(rules: &'a Rules, pace: Option<&'a Pace>) -> Self {
        Groups { rules, pace, by_signature: HashMap::new(), groups: Vec::new() }
    }

    /// Looks at the next request; false when those behind it do not matter.
    pub(super) fn add<T>(&mut self, place: Place, candidate: &'a Candidate<T>) -> bool {
        let rules = self.rules;
        let index = match self.by_signature.get(&candidate.signature) {
            Some(index) => *index,
            None if rules.in_order && !self.groups.is_empty() => {
                self.groups[0].closed = true;
                return false;
            }
            None => {
                let index = self.groups.len();
                self.by_signature.insert(&candidate.signature, index);
                self.groups.push(Group::new(candidate.arrived));
                index
            }
        };
        let group = &mut self.groups[index];
        group.add(place, candidate.rows, candidate.arrived, rules);
        // Whatever comes behind, this one is the first that is due.
        !(index == 0 && group.closed)
    }

    /// The first batch that should run now; or else when to ask again.
    pub(super) fn first_due(self, now: Instant) -> Result<Vec<Place>, Option<Instant>> {
        let mut earliest: Option<Instant> = None;
        for group in self.groups {
            let due = group.due(self.rules, self.pace);
            let late = due.is_some_and(|due| due <= now);
            if group.preferred.is_some() || group.closed || late {
                return Ok(group.into_batch());
            }
            earliest = [earliest, due].into_iter().flatten().min();
        }
        Err(earliest)
    }
}

impl Group {
    fn new(oldest: Instant) -> Self {
        Group { places: Vec::new(), rows: 0, preferred: None, closed: false, oldest, latest: oldest }
    }

    /// When it starts even if nobody else comes; `None` beyond what the clock can say.
    fn due(&self, rules: &Rules, pace: Option<&Pace>) -> Option<Instant> {
        let due = self.oldest.checked_add(rules.delay);
        let Some(pace) = pace else { return due };
        let gathered = Gathered { requests: self.places.len(), latest: self.latest };
        let until = pace.wait_until(&gathered).unwrap_or(self.oldest);
        Some(due.map_or(until, |due| due.min(until)))
    }

    fn add(&mut self, place: Place, rows: u32, arrived: Instant, rules: &Rules) {
        if self.closed {
            return;
        }
        let rows = self.rows.saturating_add(rows);
        if rows > rules.max_rows && !self.places.is_empty() {
            self.closed = true;
            return;
        }
        self.rows = rows;
        self.places.push(place);
        self.oldest = self.oldest.min(arrived);
        self.latest = self.latest.max(arrived);
        if rules.preferred.contains(&rows) {
            self.preferred = Some(self.places.len());
        }
        self.closed = rows >= rules.enough();
    }

    fn into_batch(mut self) -> Vec<Place> {
        self.places.truncate(self.preferred.unwrap_or(usize::MAX));
        self.places
    }
}

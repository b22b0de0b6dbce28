//! Decides which of the requests that wait form the next batch, and when. Pure: `now` is an argument, and what a request
//! holds is the caller's.

#[cfg(test)]
mod adaptive_tests;
mod groups;
pub(crate) mod order;
pub(crate) mod pace;
pub(crate) mod ragged;
pub(crate) mod rows;
pub(crate) mod signature;
pub(crate) mod terms;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use inference::ModelSpec;

use groups::Groups;
use pace::Pace;
use signature::Signature;
use terms::Terms;

/// What bounds a model's batches.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Rows in a batch, at most; at least 1.
    pub(crate) max_rows: u32,
    /// Rows at which a batch starts at once.
    pub(crate) preferred: Vec<u32>,
    /// How long a request may wait for others while an instance is free.
    pub(crate) delay: Duration,
    /// Whether the wait within this delay is learned.
    pub(crate) adaptive: bool,
    /// Requests leave in the order in which they came, so that none overtakes another that fits no batch with it.
    pub(crate) in_order: bool,
}

impl Rules {
    /// The rules of a model; `None` where it does not ask for batching. `adaptive` is for models that do not say.
    pub(crate) fn of(spec: &ModelSpec, adaptive: bool) -> Option<Rules> {
        // Responses that come one by one cannot be split by request: those of a decoupled model run on their own.
        let batching = spec.dynamic_batching.as_ref().filter(|_| !spec.decoupled)?;
        let max_rows = spec.max_batch_size.max(1);
        let preferred = batching.preferred_batch_sizes.iter().copied().filter(|size| *size <= max_rows).collect();
        let (delay, in_order) = (batching.max_queue_delay, batching.preserve_ordering);
        let adaptive = batching.adaptive.unwrap_or(adaptive);
        Some(Rules { max_rows, preferred, delay, adaptive, in_order })
    }

    /// Rows at which a batch stops growing.
    fn enough(&self) -> u32 {
        self.preferred.iter().copied().max().unwrap_or(self.max_rows)
    }
}

/// A request that wants to wait.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<T> {
    /// Requests of equal signatures may share a batch.
    pub(crate) signature: Signature,
    /// Rows in it; at most [`Rules::max_rows`].
    pub(crate) rows: u32,
    /// When it came.
    pub(crate) arrived: Instant,
    /// How it waits.
    pub(crate) terms: Terms,
    /// What it is.
    pub(crate) payload: T,
}

/// Names a request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    level: u64,
    sequence: u64,
}

/// The bound that a request met: so many wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The whole queue's.
    Queue(usize),
    /// That of its priority level.
    Level(u64, u32),
}

/// What is to be done now that an instance is free.
#[derive(Debug)]
pub(crate) struct Decision<T> {
    /// Their time was up; they are out of the queue and must be told.
    pub(crate) expired: Vec<T>,
    pub(crate) next: Next<T>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// These form a batch, in this order; never empty.
    Run(Vec<T>),
    /// Nothing is due before this (`None`: before something changes).
    Wait(Option<Instant>),
    /// Nobody waits.
    Idle,
}

/// In the order of service: levels, in each first those that are in time, in each the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    level: u64,
    delayed: bool,
    sequence: u64,
}

/// The requests of one model that wait.
///
/// Each is in `waiting` exactly once, from its [`Batcher::push`] to the decision, [`Batcher::remove`] or
/// [`Batcher::drain`] that hands it out; `sizes` counts them by level.
#[derive(Debug)]
pub(crate) struct Batcher<T> {
    rules: Rules,
    waiting: BTreeMap<Place, Candidate<T>>,
    sizes: BTreeMap<u64, usize>,
    pushed: u64,
    /// What has been learned; `None` where the delay is fixed.
    pace: Option<Pace>,
}

impl<T> Batcher<T> {
    pub(crate) fn new(rules: Rules) -> Self {
        let pace = rules.adaptive.then(Pace::default);
        Batcher { rules, waiting: BTreeMap::new(), sizes: BTreeMap::new(), pushed: 0, pace }
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Puts a request into the queue, of which `bound` is the largest size.
    ///
    /// # Errors
    /// The bound that is reached.
    pub(crate) fn push(&mut self, candidate: Candidate<T>, bound: usize) -> Result<Ticket, Full> {
        let level = candidate.terms.level;
        let size = self.sizes.entry(level).or_default();
        if let Some(max) = candidate.terms.max_queue_size
            && *size >= usize::try_from(max).unwrap_or(usize::MAX)
        {
            return Err(Full::Level(level, max));
        }
        if self.waiting.len() >= bound {
            return Err(Full::Queue(bound));
        }
        *size += 1;
        if let Some(pace) = &mut self.pace {
            pace.arrived(&candidate.signature, candidate.rows, candidate.arrived);
        }
        let sequence = self.pushed;
        self.pushed += 1;
        self.waiting.insert(Place { level, delayed: false, sequence }, candidate);
        Ok(Ticket { level, sequence })
    }

    /// Takes a request out of the queue; `None` when it is not there any more.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let Ticket { level, sequence } = ticket;
        let place = |delayed| Place { level, delayed, sequence };
        self.take(place(false)).or_else(|| self.take(place(true)))
    }

    /// What learns from how long batches take; `None` where the delay is fixed.
    pub(crate) fn pace(&mut self) -> Option<&mut Pace> {
        self.pace.as_mut()
    }

    /// Takes every request out of the queue.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.sizes.clear();
        std::mem::take(&mut self.waiting).into_values().map(|candidate| candidate.payload).collect()
    }

    /// What to do at `now`, when an instance is free.
    ///
    /// A batch starts when it cannot or need not grow, when it has a preferred size (the largest of those that it went
    /// through), or when one of its requests has waited for the delay (or, learned, when waiting pays no longer). Every group of equal signatures is looked at, in
    /// the order of service; only where order is promised, the first one alone.
    pub(crate) fn next(&mut self, now: Instant) -> Decision<T> {
        let expired = self.expire(now);
        let mut groups = Groups::new(&self.rules, self.pace.as_ref());
        for (place, candidate) in &self.waiting {
            if !groups.add(*place, candidate) {
                break;
            }
        }
        let next = match groups.first_due(now) {
            Ok(places) => Next::Run(places.into_iter().filter_map(|place| self.take(place)).collect()),
            Err(at) if !self.waiting.is_empty() => Next::Wait(at),
            Err(_) => Next::Idle,
        };
        Decision { expired, next }
    }

    /// Takes out the requests whose time is over, and moves back those that only lose their place.
    fn expire(&mut self, now: Instant) -> Vec<T> {
        let over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let of = |test: &dyn Fn(&Place, &Terms) -> bool, waiting: &BTreeMap<Place, Candidate<T>>| -> Vec<Place> {
            waiting.iter().filter(|(place, c)| test(place, &c.terms)).map(|(place, _)| *place).collect()
        };
        let rejected = of(&|_, terms| over(terms.reject_at), &self.waiting);
        let expired = rejected.into_iter().filter_map(|place| self.take(place)).collect();
        for place in of(&|place, terms| !place.delayed && over(terms.delay_at), &self.waiting) {
            if let Some(candidate) = self.waiting.remove(&place) {
                self.waiting.insert(Place { delayed: true, ..place }, candidate);
            }
        }
        expired
    }

    fn take(&mut self, place: Place) -> Option<T> {
        let candidate = self.waiting.remove(&place)?;
        if let Some(size) = self.sizes.get_mut(&place.level) {
            *size -= 1;
        }
        Some(candidate.payload)
    }
}

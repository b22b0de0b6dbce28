//! Which sequences there are, where each has its place, and what waits. Pure: `now` is an argument, and what a request or
//! a state holds is the caller's.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use inference::{CorrelationId, SequencePlace};

use super::endings::{Endings, Why};
use super::oldest::Oldest;
use super::rules::{Rules, Strategy};

/// Names a sequence from its start to its end. Its correlation ID may come again; this never does.
pub(crate) type Serial = u64;

/// A request that wants to wait.
#[derive(Clone, Debug)]
pub(crate) struct Arrival<T> {
    pub(crate) place: SequencePlace,
    pub(crate) arrived: Instant,
    /// When it must have begun.
    pub(crate) deadline: Option<Instant>,
    pub(crate) payload: T,
}

/// Names a request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    serial: Serial,
    number: u64,
}

/// Why a request may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its sequence has not started, or has ended for a reason that is still known.
    NotStarted(Option<Why>),
    /// So many wait already.
    Full(usize),
    /// Nothing is left that could run it.
    NoInstance,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) number: u64,
    pub(super) starts: bool,
    pub(super) ends: bool,
    pub(super) arrived: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) payload: T,
}

/// A slot of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) instance: usize,
    pub(super) slot: usize,
}

#[derive(Debug)]
pub(super) struct Sequence<T, S> {
    pub(super) id: CorrelationId,
    /// `None` while it waits for a slot.
    pub(super) seat: Option<Seat>,
    /// In their order.
    pub(super) waiting: VecDeque<Waiting<T>>,
    /// One of its requests runs.
    pub(super) running: bool,
    /// It takes no further requests: its last one is here, or will never come.
    pub(super) closed: bool,
    /// What the last request left; `None` before the first has run.
    pub(super) state: Option<S>,
    /// Since when nothing waits or runs.
    idle_since: Option<Instant>,
}

/// One instance of the model.
#[derive(Debug)]
pub(super) struct Instance {
    /// The sequence in each slot.
    pub(super) slots: Vec<Option<Serial>>,
    /// A batch runs.
    pub(super) busy: bool,
    pub(super) alive: bool,
    /// Sequences whose first request may have changed since the last decision.
    pub(super) changed: Vec<Serial>,
}

/// What leaves the table because of something else that left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Removed<T> {
    /// What was asked for, if it was still there.
    pub(crate) request: Option<T>,
    /// Requests of its sequence that came after it and cannot run without it, since it was to start the sequence.
    pub(crate) orphans: Vec<T>,
}

/// The sequences of one model.
///
/// A sequence is in `sequences` from its first request until it is closed and nothing of it waits or runs, or until it has
/// been idle for too long, or its instance is gone. All that time it has either a seat, which no other has, or a place in
/// `backlog`. `open` has those that take further requests; `waiting` is the number of requests that wait.
#[derive(Debug)]
pub(crate) struct Sequences<T, S> {
    pub(super) rules: Rules,
    pub(super) sequences: BTreeMap<Serial, Sequence<T, S>>,
    pub(super) instances: Vec<Instance>,
    pub(super) oldest: Vec<Oldest>,
    open: HashMap<CorrelationId, Serial>,
    /// Slots that nobody has: low ones first, so that instances fill evenly.
    free: BTreeSet<(usize, usize)>,
    /// In the order in which they started, as serials are.
    backlog: BTreeSet<Serial>,
    idle: BTreeSet<(Instant, Serial)>,
    endings: Endings,
    waiting: usize,
    numbers: u64,
    /// Instances that may have something to do.
    touched: BTreeSet<usize>,
}

impl<T, S> Sequences<T, S> {
    /// Nothing yet, on so many instances.
    pub(crate) fn new(rules: Rules, instances: usize) -> Self {
        let slots = rules.slots;
        let instance = |_| Instance { slots: vec![None; slots], busy: false, alive: true, changed: Vec::new() };
        let oldest = match &rules.strategy {
            Strategy::Direct { .. } => Vec::new(),
            Strategy::Oldest(rules) => (0..instances).map(|_| Oldest::new(rules.clone())).collect(),
        };
        Sequences {
            free: (0..slots).flat_map(|slot| (0..instances).map(move |instance| (slot, instance))).collect(),
            instances: (0..instances).map(instance).collect(),
            oldest,
            rules,
            sequences: BTreeMap::new(),
            open: HashMap::new(),
            backlog: BTreeSet::new(),
            idle: BTreeSet::new(),
            endings: Endings::default(),
            waiting: 0,
            numbers: 0,
            touched: BTreeSet::new(),
        }
    }

    /// Whether there is a sequence that has not ended.
    pub(crate) fn is_live(&self) -> bool {
        !self.sequences.is_empty()
    }

    /// How long a sequence may be idle.
    pub(crate) fn max_idle(&self) -> Duration {
        self.rules.max_idle
    }

    /// Whether a sequence takes further requests.
    pub(crate) fn is_open(&self, id: &CorrelationId) -> bool {
        self.open.contains_key(id)
    }

    /// The instances at which something has changed since this was last asked.
    pub(crate) fn take_touched(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.touched).into_iter().collect()
    }

    /// Whether an instance has, or will have, something to run.
    pub(crate) fn has_work(&self, instance: usize) -> bool {
        let instance = &self.instances[instance];
        let waits = |serial: &Serial| self.sequences.get(serial).is_some_and(|sequence| !sequence.waiting.is_empty());
        !instance.busy && instance.slots.iter().flatten().any(waits)
    }

    /// Lets a request wait; `bound` is how many may wait that cannot begin at once.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) fn push(&mut self, arrival: Arrival<T>, bound: usize) -> Result<Ticket, Refusal> {
        let Arrival { place: SequencePlace { id, starts, ends }, arrived, deadline, payload } = arrival;
        let known = self.open.get(&id).copied();
        if known.is_none() && !starts {
            return Err(Refusal::NotStarted(self.endings.why(&id)));
        }
        if !self.instances.iter().any(|instance| instance.alive) {
            return Err(Refusal::NoInstance);
        }
        if self.waiting >= bound && !self.begins_at_once(known) {
            return Err(Refusal::Full(bound));
        }
        self.numbers += 1;
        let number = self.numbers;
        let serial = known.unwrap_or_else(|| self.start(id.clone(), number));
        let sequence = self.sequences.get_mut(&serial).expect("invariant: what is open is here");
        sequence.waiting.push_back(Waiting { number, starts, ends, arrived, deadline, payload });
        sequence.closed = ends;
        if let Some(since) = sequence.idle_since.take() {
            self.idle.remove(&(since, serial));
        }
        if ends {
            self.open.remove(&id);
        }
        self.waiting += 1;
        self.touch(serial);
        self.settle();
        Ok(Ticket { serial, number })
    }

    /// A new sequence, not yet seated. The number of its first request names it.
    fn start(&mut self, id: CorrelationId, serial: Serial) -> Serial {
        self.endings.forget(&id);
        self.open.insert(id.clone(), serial);
        let (waiting, state) = Default::default();
        let sequence = Sequence { id, seat: None, waiting, running: false, closed: false, state, idle_since: None };
        self.sequences.insert(serial, sequence);
        self.backlog.insert(serial);
        serial
    }

    /// Whether the next request of a sequence (of a new one when `None`) waits for nothing but others to share its batch.
    fn begins_at_once(&self, known: Option<Serial>) -> bool {
        let instance = match known.and_then(|serial| self.sequences.get(&serial)) {
            Some(sequence) if sequence.running || !sequence.waiting.is_empty() => None,
            Some(sequence) => sequence.seat.map(|seat| seat.instance),
            None => self.free.first().map(|(_, instance)| *instance),
        };
        instance.is_some_and(|instance| !self.instances[instance].busy)
    }

    /// Takes a request out that waits.
    pub(crate) fn remove(&mut self, ticket: Ticket, now: Instant) -> Removed<T> {
        let Ticket { serial, number } = ticket;
        let position = self
            .sequences
            .get(&serial)
            .and_then(|sequence| sequence.waiting.iter().position(|waiting| waiting.number == number));
        match position {
            Some(position) => self.take_out(serial, position, now),
            None => Removed { request: None, orphans: Vec::new() },
        }
    }

    /// Takes one of a sequence's requests out that will not run. Those behind it that it was to start go with it.
    pub(super) fn take_out(&mut self, serial: Serial, position: usize, now: Instant) -> Removed<T> {
        let mut removed = Removed { request: None, orphans: Vec::new() };
        let Some(sequence) = self.sequences.get_mut(&serial) else { return removed };
        let Some(taken) = sequence.waiting.remove(position) else { return removed };
        removed.request = Some(taken.payload);
        self.waiting -= 1;
        if taken.starts {
            removed.orphans = self.lose_start(serial, position);
        }
        self.touch(serial);
        self.rest(serial, now);
        self.settle();
        removed
    }

    /// The request that was to start a sequence will not run, or was cancelled while it ran: takes those out that wait behind
    /// it, from `position` on to the next start.
    pub(crate) fn lose_start(&mut self, serial: Serial, position: usize) -> Vec<T> {
        let mut orphans = Vec::new();
        let Some(sequence) = self.sequences.get_mut(&serial) else { return orphans };
        while sequence.waiting.get(position).is_some_and(|next| !next.starts) {
            orphans.extend(sequence.waiting.remove(position).map(|orphan| orphan.payload));
        }
        self.waiting -= orphans.len();
        // Nothing has started what would come now.
        if sequence.waiting.len() == position && !std::mem::replace(&mut sequence.closed, true) {
            self.open.remove(&sequence.id);
            self.endings.remember(sequence.id.clone(), Why::StartLost);
        }
        orphans
    }

    /// A batch has ended on an instance: which sequences were in it, and the new states of those that have one.
    pub(crate) fn complete(&mut self, instance: usize, ran: Vec<(Serial, Option<S>)>, now: Instant) {
        self.instances[instance].busy = false;
        self.touched.insert(instance);
        for (serial, state) in ran {
            let Some(sequence) = self.sequences.get_mut(&serial) else { continue };
            sequence.running = false;
            if state.is_some() {
                sequence.state = state;
            }
            self.touch(serial);
            self.rest(serial, now);
        }
        self.settle();
    }

    /// An instance is gone for good, and the sequences on it with it: returns their requests that wait. When it was the
    /// last, those of the sequences without a slot as well.
    pub(crate) fn lose(&mut self, instance: usize) -> Vec<(CorrelationId, T)> {
        self.instances[instance].alive = false;
        self.free.retain(|(_, of)| *of != instance);
        let none_left = !self.instances.iter().any(|instance| instance.alive);
        let is_gone = |sequence: &Sequence<T, S>| match sequence.seat {
            Some(seat) => seat.instance == instance,
            None => none_left,
        };
        let gone = self.sequences.iter().filter(|(_, sequence)| is_gone(sequence)).map(|(serial, _)| *serial);
        let mut lost = Vec::new();
        for serial in gone.collect::<Vec<_>>() {
            let Some(sequence) = self.forget(serial, Some(Why::Crashed)) else { continue };
            self.waiting -= sequence.waiting.len();
            lost.extend(sequence.waiting.into_iter().map(|waiting| (sequence.id.clone(), waiting.payload)));
        }
        lost
    }

    /// Ends the sequences that have been idle for too long.
    pub(crate) fn end_idle(&mut self, now: Instant) {
        while let Some((since, serial)) = self.idle.first().copied()
            && now.saturating_duration_since(since) >= self.rules.max_idle
        {
            self.forget(serial, Some(Why::Idle));
        }
        self.settle();
    }

    /// When the next sequence will have been idle for too long, unless something happens.
    pub(crate) fn next_idle_end(&self) -> Option<Instant> {
        self.idle.first().and_then(|(since, _)| since.checked_add(self.rules.max_idle))
    }

    /// Notes that a sequence's first request may be another one now.
    fn touch(&mut self, serial: Serial) {
        if let Some(seat) = self.sequences.get(&serial).and_then(|sequence| sequence.seat) {
            self.instances[seat.instance].changed.push(serial);
            self.touched.insert(seat.instance);
        }
    }

    /// A sequence of which nothing waits or runs is over, or idle from now on.
    fn rest(&mut self, serial: Serial, now: Instant) {
        let Some(sequence) = self.sequences.get_mut(&serial) else { return };
        if sequence.running || !sequence.waiting.is_empty() || sequence.idle_since.is_some() {
            return;
        }
        if sequence.closed {
            self.forget(serial, None);
        } else {
            sequence.idle_since = Some(now);
            self.idle.insert((now, serial));
        }
    }

    /// Takes a sequence out, whatever of it waits, and frees its slot.
    fn forget(&mut self, serial: Serial, why: Option<Why>) -> Option<Sequence<T, S>> {
        let sequence = self.sequences.remove(&serial)?;
        self.backlog.remove(&serial);
        if let Some(since) = sequence.idle_since {
            self.idle.remove(&(since, serial));
        }
        if self.open.get(&sequence.id) == Some(&serial) {
            self.open.remove(&sequence.id);
            why.into_iter().for_each(|why| self.endings.remember(sequence.id.clone(), why));
        }
        if let Some(Seat { instance, slot }) = sequence.seat {
            self.instances[instance].slots[slot] = None;
            self.instances[instance].changed.push(serial);
            self.touched.insert(instance);
            if self.instances[instance].alive {
                self.free.insert((slot, instance));
            }
        }
        Some(sequence)
    }

    /// Gives free slots to those that wait for one, in the order in which they started.
    fn settle(&mut self) {
        while let (Some((slot, instance)), Some(serial)) = (self.free.first().copied(), self.backlog.first().copied()) {
            self.free.remove(&(slot, instance));
            self.backlog.remove(&serial);
            self.instances[instance].slots[slot] = Some(serial);
            if let Some(sequence) = self.sequences.get_mut(&serial) {
                sequence.seat = Some(Seat { instance, slot });
            }
            self.touch(serial);
        }
    }

    /// A sequence's first request leaves to run.
    pub(super) fn begin(&mut self, serial: Serial) -> Option<(&Sequence<T, S>, Waiting<T>)> {
        let sequence = self.sequences.get_mut(&serial)?;
        let waiting = sequence.waiting.pop_front()?;
        sequence.running = true;
        self.waiting -= 1;
        Some((sequence, waiting))
    }
}

//! Decides what an instance runs next; pure.

use std::time::Instant;

use inference::CorrelationId;

use super::oldest::Head;
use super::rules::Strategy;
use super::table::{Removed, Sequence, Sequences, Serial, Waiting};
use crate::batcher::signature::Signature;

/// A request of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row<T, S> {
    pub(crate) serial: Serial,
    pub(crate) id: CorrelationId,
    pub(crate) starts: bool,
    pub(crate) ends: bool,
    /// What its sequence's last request left; `None` for the initial state.
    pub(crate) state: Option<S>,
    pub(crate) arrived: Instant,
    pub(crate) payload: T,
}

/// What is to be done for an instance.
#[derive(Debug)]
pub(crate) struct Decision<T, S> {
    /// Their time was up; they are out of the queue and must be told. So must those that they took with them.
    pub(crate) expired: Vec<Removed<T>>,
    pub(crate) next: Next<T, S>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T, S> {
    /// These form a batch, which has one request at least. With the strategy "direct" the n-th row is the n-th slot, and
    /// `None` where that has nothing to run.
    Run(Vec<Option<Row<T, S>>>),
    /// Nothing is due before this (`None`: before another request comes).
    Wait(Option<Instant>),
    /// Nothing that could run waits.
    Idle,
}

/// Requests of equal signatures may share a batch: of this request and what its sequence's last one left.
pub(crate) type Sign<'a, T, S> = &'a dyn Fn(&T, Option<&S>) -> Signature;

impl<T, S: Clone> Sequences<T, S> {
    /// What an instance is to do at `now`. Once it is to run a batch it is busy, until [`Sequences::complete`].
    pub(crate) fn next(&mut self, instance: usize, now: Instant, sign: Sign<'_, T, S>) -> Decision<T, S> {
        if self.instances[instance].busy || !self.instances[instance].alive {
            return Decision { expired: Vec::new(), next: Next::Idle };
        }
        let expired = self.expire(instance, now);
        let chosen = match self.rules.strategy {
            Strategy::Direct { .. } => self.direct(instance, now, sign),
            Strategy::Oldest(_) => self.oldest(instance, now, sign).map(|batch| batch.into_iter().map(Some).collect()),
        };
        self.instances[instance].changed.clear();
        let next = match chosen {
            Ok(slots) => {
                self.instances[instance].busy = true;
                Next::Run(slots.into_iter().map(|serial| self.row(serial?)).collect())
            }
            Err(at) if self.has_work(instance) => Next::Wait(at),
            Err(_) => Next::Idle,
        };
        Decision { expired, next }
    }

    /// Takes out what could run but is late.
    fn expire(&mut self, instance: usize, now: Instant) -> Vec<Removed<T>> {
        let mut expired = Vec::new();
        for slot in 0..self.instances[instance].slots.len() {
            while let Some(serial) = self.instances[instance].slots[slot]
                && let Some(head) = self.sequences.get(&serial).and_then(head)
                && head.deadline.is_some_and(|deadline| deadline <= now)
            {
                expired.push(self.take_out(serial, 0, now));
            }
        }
        expired
    }

    /// The slots of the next batch, up to the last that belongs to a sequence. The request that has waited longest says
    /// which others may share it.
    fn direct(
        &self,
        instance: usize,
        now: Instant,
        sign: Sign<'_, T, S>,
    ) -> Result<Vec<Option<Serial>>, Option<Instant>> {
        let Strategy::Direct { enough, delay } = self.rules.strategy else { return Err(None) };
        let slots = &self.instances[instance].slots;
        let ready = |serial: &Serial| {
            let sequence = self.sequences.get(serial)?;
            head(sequence).map(|head| (head.arrived, head.number, sign(&head.payload, state(sequence, head))))
        };
        let heads: Vec<_> = slots.iter().map(|serial| serial.as_ref().and_then(ready)).collect();
        let oldest = heads.iter().flatten().min_by_key(|(arrived, number, _)| (*arrived, *number));
        let Some((arrived, _, signature)) = oldest else { return Err(None) };
        let joins: Vec<_> = heads.iter().map(|head| head.as_ref().is_some_and(|(.., own)| own == signature)).collect();
        let due = arrived.checked_add(delay);
        let late = due.is_some_and(|due| due <= now);
        if joins.iter().filter(|joins| **joins).count() < enough && !late {
            return Err(due);
        }
        let height = slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        Ok(slots.iter().zip(joins).take(height).map(|(serial, joins)| serial.filter(|_| joins)).collect())
    }

    fn oldest(&mut self, instance: usize, now: Instant, sign: Sign<'_, T, S>) -> Result<Vec<Serial>, Option<Instant>> {
        let Some(oldest) = self.oldest.get_mut(instance) else { return Err(None) };
        for serial in std::mem::take(&mut self.instances[instance].changed) {
            let sequence = self.sequences.get(&serial);
            let head = sequence.and_then(|sequence| Some((sequence, head(sequence)?)));
            if head.map(|(_, head)| head.number) != oldest.offered(serial) {
                let offer = head.map(|(sequence, head)| Head {
                    number: head.number,
                    arrived: head.arrived,
                    signature: sign(&head.payload, state(sequence, head)),
                });
                oldest.offer(serial, offer);
            }
        }
        oldest.next(now)
    }

    fn row(&mut self, serial: Serial) -> Option<Row<T, S>> {
        let (sequence, waiting) = self.begin(serial)?;
        let state = state(sequence, &waiting).cloned();
        let Waiting { starts, ends, arrived, payload, .. } = waiting;
        Some(Row { serial, id: sequence.id.clone(), starts, ends, state, arrived, payload })
    }
}

/// The request of a sequence that could run now.
fn head<T, S>(sequence: &Sequence<T, S>) -> Option<&Waiting<T>> {
    sequence.waiting.front().filter(|_| !sequence.running)
}

/// What a request finds: a start begins anew.
fn state<'a, T, S>(sequence: &'a Sequence<T, S>, request: &Waiting<T>) -> Option<&'a S> {
    sequence.state.as_ref().filter(|_| !request.starts)
}

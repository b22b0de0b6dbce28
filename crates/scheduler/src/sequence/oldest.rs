//! The strategy "oldest": the first requests of an instance's sequences go through the batcher of dynamic batching; pure.

use std::collections::HashMap;
use std::time::Instant;

use super::table::Serial;
use crate::batcher::signature::Signature;
use crate::batcher::terms::Terms;
use crate::batcher::{self, Batcher, Candidate, Next, Ticket};

/// A request that could run: the first one of its sequence.
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) arrived: Instant,
    pub(super) signature: Signature,
}

/// The requests that could run on an instance.
///
/// `offered` has the request of each sequence that is in the batcher.
#[derive(Debug)]
pub(super) struct Oldest {
    batcher: Batcher<Serial>,
    offered: HashMap<Serial, (u64, Ticket)>,
}

impl Oldest {
    pub(super) fn new(rules: batcher::Rules) -> Self {
        Oldest { batcher: Batcher::new(rules), offered: HashMap::new() }
    }

    /// The number of the request that stands for a sequence.
    pub(super) fn offered(&self, serial: Serial) -> Option<u64> {
        self.offered.get(&serial).map(|(number, _)| *number)
    }

    /// Says which request of a sequence can run, if any; in place of what was said before.
    pub(super) fn offer(&mut self, serial: Serial, head: Option<Head>) {
        if let Some((_, ticket)) = self.offered.remove(&serial) {
            self.batcher.remove(ticket);
        }
        let Some(Head { number, arrived, signature }) = head else { return };
        let candidate = Candidate { signature, rows: 1, arrived, terms: Terms::default(), payload: serial };
        // Sequences are bounded by their slots, and their requests by the queue that they come from.
        if let Ok(ticket) = self.batcher.push(candidate, usize::MAX) {
            self.offered.insert(serial, (number, ticket));
        }
    }

    /// The sequences whose requests form a batch now; or else when to ask again.
    pub(super) fn next(&mut self, now: Instant) -> Result<Vec<Serial>, Option<Instant>> {
        match self.batcher.next(now).next {
            Next::Run(batch) => {
                for serial in &batch {
                    self.offered.remove(serial);
                }
                Ok(batch)
            }
            Next::Wait(at) => Err(at),
            Next::Idle => Err(None),
        }
    }
}

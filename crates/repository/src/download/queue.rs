//! Who gets the next of a number of turns: the most urgent, and of those the one that came first. Pure.

use std::collections::BTreeSet;

use super::Priority;

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    priority: Priority,
    number: u64,
}

impl Ticket {
    pub(super) fn priority(self) -> Priority {
        self.priority
    }

    /// What tells tickets apart, and stays when one moves forward.
    pub(super) fn number(self) -> u64 {
        self.number
    }
}

/// A number of turns and those who wait for one. Downloads that nobody waits for never hold the last turns, so that one
/// that somebody waits for need not wait until such a download ends.
#[derive(Debug)]
pub(super) struct TurnQueue {
    free: usize,
    /// As many turns more may go to the background.
    free_for_background: usize,
    waiting: BTreeSet<Ticket>,
    next_number: u64,
}

impl TurnQueue {
    /// `turns` at once; background work gets three quarters of them, and one at least.
    pub(super) fn new(turns: usize) -> Self {
        let turns = turns.max(1);
        TurnQueue {
            free: turns,
            free_for_background: (turns - turns / 4).max(1).min((turns - 1).max(1)),
            waiting: BTreeSet::new(),
            next_number: 0,
        }
    }

    /// Joins the queue at its priority's end.
    pub(super) fn join(&mut self, priority: Priority) -> Ticket {
        let ticket = Ticket { priority, number: self.next_number };
        self.next_number += 1;
        self.waiting.insert(ticket);
        ticket
    }

    /// Takes whoever is next out of the queue and gives it a turn; `None` when nobody may have one now.
    pub(super) fn next(&mut self) -> Option<Ticket> {
        let ticket = *self.waiting.first()?;
        let is_background = ticket.priority.is_background();
        if self.free == 0 || (is_background && self.free_for_background == 0) {
            return None;
        }
        self.waiting.remove(&ticket);
        self.free -= 1;
        self.free_for_background -= usize::from(is_background);
        Some(ticket)
    }

    /// Gives up waiting; `false` when the ticket has a turn already.
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        self.waiting.remove(&ticket)
    }

    /// Moves forward to `priority`, before those who joined there later; `None` when the ticket has a turn already.
    pub(super) fn promote(&mut self, ticket: Ticket, priority: Priority) -> Option<Ticket> {
        if !self.waiting.remove(&ticket) {
            return None;
        }
        let promoted = Ticket { priority: priority.min(ticket.priority), number: ticket.number };
        self.waiting.insert(promoted);
        Some(promoted)
    }

    /// Ends the turn that `ticket` got.
    pub(super) fn end(&mut self, ticket: Ticket) {
        self.free += 1;
        self.free_for_background += usize::from(ticket.priority.is_background());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_urgent_go_first_and_the_background_leaves_room() {
        let mut queue = TurnQueue::new(4);
        let background: Vec<_> = (0..4).map(|_| queue.join(Priority::Prefetch)).collect();
        assert_eq!(std::iter::from_fn(|| queue.next()).collect::<Vec<_>>(), background[..3]);
        let (refresh, miss) = (queue.join(Priority::Refresh), queue.join(Priority::Interactive));
        assert_eq!(queue.next(), Some(miss));
        assert_eq!(queue.next(), None);
        queue.end(background[0]);
        assert_eq!(queue.next(), Some(refresh));
        queue.end(miss);
        assert_eq!(queue.next(), None, "the last turn is for those somebody waits for");
        let promoted = queue.promote(background[3], Priority::Interactive).expect("it waits");
        assert_eq!(queue.next(), Some(promoted));
        assert!(!queue.leave(promoted));
    }

    proptest! {
        /// Turns are neither lost nor made, the background never holds all of several, and whoever is passed over is less
        /// urgent or came later.
        #[test]
        fn turns_are_kept_in_order(turns in 1..9usize, steps in prop::collection::vec((0..5u8, 0..3usize, any::<prop::sample::Index>()), 1..200)) {
            let priorities = [Priority::Interactive, Priority::Refresh, Priority::Prefetch];
            let mut queue = TurnQueue::new(turns);
            let (mut waiting, mut holding) = (Vec::<Ticket>::new(), Vec::<Ticket>::new());
            for (step, class, index) in steps {
                match step {
                    0 | 1 => waiting.push(queue.join(priorities[class])),
                    2 if !holding.is_empty() => queue.end(holding.swap_remove(index.index(holding.len()))),
                    3 if !waiting.is_empty() => {
                        let at = index.index(waiting.len());
                        waiting[at] = queue.promote(waiting[at], priorities[class]).expect("it waits");
                    }
                    4 if !waiting.is_empty() => prop_assert!(queue.leave(waiting.swap_remove(index.index(waiting.len())))),
                    _ => {}
                }
                while let Some(ticket) = queue.next() {
                    prop_assert_eq!(Some(&ticket), waiting.iter().min());
                    waiting.retain(|other| *other != ticket);
                    holding.push(ticket);
                }
                let background = holding.iter().filter(|ticket| ticket.priority.is_background()).count();
                prop_assert!(holding.len() <= turns && (turns == 1 || background < turns));
                let urgent = waiting.iter().any(|ticket| ticket.priority == Priority::Interactive);
                prop_assert!(!urgent || holding.len() == turns);
                prop_assert!(waiting.is_empty() || !holding.is_empty());
            }
        }
    }
}

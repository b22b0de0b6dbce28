//! In which order the answers on one stream leave: those of ordinary models in the order of their requests, those of
//! decoupled models as they come. Pure.

use std::collections::VecDeque;

/// A request's place.
pub(super) type Ticket = u64;

/// The requests whose answers wait for those before them.
///
/// The first in `line` has nothing held back; requests of decoupled models are not in `line`.
pub(super) struct Order<T> {
    line: VecDeque<Place<T>>,
}

struct Place<T> {
    ticket: Ticket,
    held: Vec<T>,
    ended: bool,
}

impl<T> Order<T> {
    pub(super) fn new() -> Self {
        Order { line: VecDeque::new() }
    }

    /// How many requests are in line.
    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    /// A request that is answered after those that were admitted before it.
    pub(super) fn admit(&mut self, ticket: Ticket) {
        self.line.push_back(Place { ticket, held: Vec::new(), ended: false });
    }

    /// An answer has come; returns what may leave now.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: T) -> Vec<T> {
        match self.line.iter().position(|place| place.ticket == ticket) {
            None | Some(0) => vec![answer],
            Some(position) => {
                self.line[position].held.push(answer);
                Vec::new()
            }
        }
    }

    /// The request's model is decoupled: its answers need not wait, and nothing waits for them. Returns what may leave now.
    pub(super) fn release(&mut self, ticket: Ticket) -> Vec<T> {
        let Some(position) = self.line.iter().position(|place| place.ticket == ticket) else { return Vec::new() };
        let mut free = self.line.remove(position).map(|place| place.held).unwrap_or_default();
        if position == 0 {
            free.extend(self.advance());
        }
        free
    }

    /// No more answers to the request will come; returns what may leave now.
    pub(super) fn end(&mut self, ticket: Ticket) -> Vec<T> {
        let Some(position) = self.line.iter().position(|place| place.ticket == ticket) else { return Vec::new() };
        self.line[position].ended = true;
        if position > 0 {
            return Vec::new();
        }
        self.line.pop_front();
        self.advance()
    }

    /// What the first in line held back, and those behind it, up to one that has not ended.
    fn advance(&mut self) -> Vec<T> {
        let mut free = Vec::new();
        while let Some(first) = self.line.front_mut() {
            free.append(&mut first.held);
            if !first.ended {
                break;
            }
            self.line.pop_front();
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_decoupled_request_waits_for_nobody_and_holds_up_nobody() {
        let mut order = Order::new();
        order.admit(0);
        order.admit(1);
        order.admit(2);
        assert!(order.answer(2, "c").is_empty());
        assert!(order.end(2).is_empty());
        assert_eq!(order.len(), 3, "what has ended waits too");
        assert!(order.answer(0, "a1").len() == 1, "the first in line");
        assert!(order.release(0).is_empty(), "request 1 has not been answered");
        assert_eq!(order.answer(0, "a2"), ["a2"]);
        assert_eq!(order.answer(9, "never admitted"), ["never admitted"]);
        assert_eq!(order.answer(1, "b"), ["b"]);
        assert_eq!(order.end(1), ["c"]);
        assert!(order.end(0).is_empty() && order.len() == 0);
    }

    proptest! {
        #[test]
        fn everything_leaves_once_and_in_order(endings in Just((0..20u64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut order = Order::new();
            (0..20).for_each(|ticket| order.admit(ticket));
            let mut left = Vec::new();
            for ticket in endings {
                left.extend(order.answer(ticket, ticket));
                left.extend(order.end(ticket));
            }
            prop_assert_eq!(left, (0..20).collect::<Vec<_>>());
        }
    }
}

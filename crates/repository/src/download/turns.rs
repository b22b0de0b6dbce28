//! Turns, waited for in order of urgency.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::queue::{Ticket, TurnQueue};
use super::{Priority, Urgency};

/// A number of turns, given to the most urgent first.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
    /// Gauges of those who have a turn, and of those who wait for one.
    taken: &'static str,
    waiting: &'static str,
}

#[derive(Debug)]
struct State {
    queue: TurnQueue,
    /// How those who wait are told, by the number that a ticket keeps when it moves forward.
    waiters: HashMap<u64, oneshot::Sender<()>>,
}

impl Turns {
    /// `count` at once, with the names of the gauges that show them.
    pub(crate) fn new(count: usize, taken: &'static str, waiting: &'static str) -> Arc<Self> {
        let state = Mutex::new(State { queue: TurnQueue::new(count), waiters: HashMap::new() });
        Arc::new(Turns { state, taken, waiting })
    }

    /// Waits for a turn; dropping the future gives up the place.
    pub(crate) async fn take(self: &Arc<Self>, urgency: &Urgency) -> Turn {
        let (mut place, mut granted) = self.join(urgency.now());
        loop {
            let priority = place.ticket.priority();
            tokio::select! {
                biased;
                turn = &mut granted => {
                    turn.expect("invariant: the sender goes only with a turn or with the place");
                    metrics::gauge!(place.turns.waiting).decrement(1.0);
                    metrics::gauge!(place.turns.taken).increment(1.0);
                    place.has_turn = true;
                    return Turn(place);
                }
                priority = urgency.above(priority), if priority.is_background() => place.promote(priority),
            }
        }
    }

    fn join(self: &Arc<Self>, priority: Priority) -> (Place, oneshot::Receiver<()>) {
        let (sender, granted) = oneshot::channel();
        metrics::gauge!(self.waiting).increment(1.0);
        let mut state = self.state.lock();
        let ticket = state.queue.join(priority);
        state.waiters.insert(ticket.number(), sender);
        state.grant();
        drop(state);
        (Place { turns: Arc::clone(self), ticket, has_turn: false }, granted)
    }
}

impl State {
    /// Tells everyone whose turn it is.
    fn grant(&mut self) {
        while let Some(ticket) = self.queue.next() {
            let waiter = self.waiters.remove(&ticket.number()).expect("invariant: one waiter for each ticket");
            // Whoever does not listen any more gives the turn back when its place is dropped.
            let _ = waiter.send(());
        }
    }
}

/// A place in the queue, or a turn; dropping it gives up either.
#[derive(Debug)]
struct Place {
    turns: Arc<Turns>,
    ticket: Ticket,
    /// Whether it has been counted as one that has a turn.
    has_turn: bool,
}

impl Place {
    fn promote(&mut self, priority: Priority) {
        let mut state = self.turns.state.lock();
        if let Some(promoted) = state.queue.promote(self.ticket, priority) {
            self.ticket = promoted;
            state.grant();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gauge = if self.has_turn { self.turns.taken } else { self.turns.waiting };
        metrics::gauge!(gauge).decrement(1.0);
        let mut state = self.turns.state.lock();
        if state.queue.leave(self.ticket) {
            state.waiters.remove(&self.ticket.number());
        } else {
            state.queue.end(self.ticket);
        }
        state.grant();
    }
}

/// A turn; dropping it passes it on.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held for its drop")] Place);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_goes_to_the_most_urgent_as_it_is_by_then() {
        let turns = Turns::new(1, "taken", "waiting");
        let first = turns.take(&Priority::Interactive.into()).await;
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        let raised = Urgency::from(Priority::Prefetch);
        let waiters = [
            ("prefetch", Urgency::from(Priority::Prefetch)),
            ("raised", raised.clone()),
            ("refresh", Priority::Refresh.into()),
        ];
        for (name, urgency) in waiters {
            let (turns, sender) = (turns.clone(), sender.clone());
            tokio::spawn(async move {
                let _turn = turns.take(&urgency).await;
                sender.send(name).expect("the test listens");
            });
        }
        let gone = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(&Priority::Interactive.into()).await }
        });
        while turns.state.lock().waiters.len() < 4 {
            tokio::task::yield_now().await;
        }
        raised.raise(Priority::Interactive);
        gone.abort();
        assert!(gone.await.is_err());
        tokio::task::yield_now().await;
        drop(first);
        let mut names = Vec::new();
        for _ in 0..3 {
            names.push(order.recv().await.expect("a name"));
        }
        assert_eq!(names, ["raised", "refresh", "prefetch"]);
        assert!(turns.state.lock().waiters.is_empty());
    }
}

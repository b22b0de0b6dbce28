//! Turns, waited for in order of urgency.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::queue::{Ticket, TurnQueue};
use super::{Priority, Urgency};

/// A number of turns, given to the most urgent first.
#[derive(Debug)]
pub(crate) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    queue: TurnQueue,
    /// How those who wait are told, by the number that a ticket keeps when it moves forward.
    waiters: HashMap<u64, oneshot::Sender<()>>,
}

impl Turns {
    /// `count` at once.
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Turns(Mutex::new(State { queue: TurnQueue::new(count), waiters: HashMap::new() })))
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
                    return Turn(place);
                }
                priority = urgency.above(priority), if priority.is_background() => place.promote(priority),
            }
        }
    }

    fn join(self: &Arc<Self>, priority: Priority) -> (Place, oneshot::Receiver<()>) {
        let (sender, granted) = oneshot::channel();
        let mut state = self.0.lock();
        let ticket = state.queue.join(priority);
        state.waiters.insert(ticket.number(), sender);
        state.grant();
        drop(state);
        (Place { turns: Arc::clone(self), ticket }, granted)
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
}

impl Place {
    fn promote(&mut self, priority: Priority) {
        let mut state = self.turns.0.lock();
        if let Some(promoted) = state.queue.promote(self.ticket, priority) {
            self.ticket = promoted;
            state.grant();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.turns.0.lock();
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
        let turns = Turns::new(1);
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
        while turns.0.lock().waiters.len() < 4 {
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
        assert!(turns.0.lock().waiters.is_empty());
    }
}

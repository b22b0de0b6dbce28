//! A request's place in the queue, from the caller's side: waiting for the answer, giving up, going away.

use std::sync::Arc;

use inference::{CancelCause, Result};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::{Answer, DynamicQueue};
use crate::audience::Waiter;
use crate::batcher::Ticket;
use crate::executor::overdue;
use crate::refusal::{late, shutting_down};

/// A place in the queue; dropping it leaves the queue, if the request still waits there, or else the audience of its run.
pub(super) struct Place<'q> {
    queue: &'q Arc<DynamicQueue>,
    ticket: Option<Ticket>,
    waiter: Arc<Waiter>,
}

type Receiver = oneshot::Receiver<Result<Answer>>;

impl<'q> Place<'q> {
    pub(super) fn new(queue: &'q Arc<DynamicQueue>, ticket: Ticket, waiter: Arc<Waiter>) -> Self {
        Place { queue, ticket: Some(ticket), waiter }
    }

    /// Waits for the answer: in the queue until `reject_at`, running until its deadline.
    pub(super) async fn wait(mut self, mut answer: Receiver, reject_at: Option<Instant>) -> Result<Answer> {
        if let Some(reject_at) = reject_at {
            match timeout_at(reject_at, &mut answer).await {
                Ok(answer) => return self.answered(answer),
                Err(_elapsed) if self.leave() => return Err(late(&self.queue.spec.name)),
                // It runs.
                Err(_elapsed) => {}
            }
        }
        match self.waiter.deadline() {
            None => {
                let answer = answer.await;
                self.answered(answer)
            }
            Some(deadline) => match timeout_at(deadline, answer).await {
                Ok(answer) => self.answered(answer),
                Err(_elapsed) => {
                    self.waiter.leave(CancelCause::Overdue);
                    Err(overdue(&self.queue.spec.name))
                }
            },
        }
    }

    fn answered(&mut self, answer: Result<Result<Answer>, oneshot::error::RecvError>) -> Result<Answer> {
        self.ticket = None;
        answer.unwrap_or_else(|gone| Err(shutting_down(gone)))
    }

    /// Leaves the queue; false when the request is not there any more.
    fn leave(&mut self) -> bool {
        let Some(ticket) = self.ticket.take() else { return false };
        let (removed, empty) = {
            let mut state = self.queue.state.lock();
            (state.batcher.remove(ticket), state.batcher.len() == 0)
        };
        if removed.is_some() {
            self.queue.metrics.left(1);
            if empty {
                // A driver that waits for the delay has nothing to wait for any more.
                self.queue.changed.notify_one();
            }
        }
        removed.is_some()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.leave();
        self.waiter.leave(CancelCause::Abandoned);
    }
}

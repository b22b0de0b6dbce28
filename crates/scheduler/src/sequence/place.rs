//! A request's place in the queue, from the caller's side: waiting for the answer, giving up, going away.

use std::sync::Arc;

use inference::{CancelCause, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::SequenceQueue;
use super::refusal::orphaned;
use super::table::Ticket;
use crate::audience::Waiter;
use crate::dynamic::Answer;
use crate::executor::overdue;
use crate::refusal::{late, shutting_down};

/// A place in the queue; dropping it leaves the queue, if the request still waits there, or else the audience of its run.
pub(super) struct Place<'q> {
    queue: &'q Arc<SequenceQueue>,
    ticket: Option<Ticket>,
    waiter: Arc<Waiter>,
}

impl<'q> Place<'q> {
    pub(super) fn new(queue: &'q Arc<SequenceQueue>, ticket: Ticket, waiter: Arc<Waiter>) -> Self {
        Place { queue, ticket: Some(ticket), waiter }
    }

    /// Waits for the answer, until its deadline.
    pub(super) async fn wait(mut self, answer: oneshot::Receiver<Result<Answer>>) -> Result<Answer> {
        let answer = match self.waiter.deadline() {
            None => answer.await,
            Some(deadline) => match timeout_at(deadline, answer).await {
                Ok(answer) => answer,
                Err(_elapsed) if self.leave() => return Err(late(&self.queue.spec.name)),
                // It runs.
                Err(_elapsed) => {
                    self.waiter.leave(CancelCause::Overdue);
                    return Err(overdue(&self.queue.spec.name));
                }
            },
        };
        self.ticket = None;
        answer.unwrap_or_else(|gone| Err(shutting_down(gone)))
    }

    /// Leaves the queue; false when the request is not there any more.
    fn leave(&mut self) -> bool {
        let Some(ticket) = self.ticket.take() else { return false };
        let (removed, touched) = {
            let mut state = self.queue.state.lock();
            let removed = state.table.remove(ticket, Instant::now().into_std());
            (removed, state.table.take_touched())
        };
        let was_there = removed.request.is_some();
        self.queue.metrics.left(removed.orphans.len() + usize::from(was_there));
        for orphan in removed.orphans {
            // Whoever is gone needs no answer.
            let _ = orphan.reply.send(Err(orphaned(&self.queue.spec.name)));
        }
        // A runtime that is being shut down runs nothing more.
        if Handle::try_current().is_ok() {
            self.queue.begin(touched);
        }
        was_there
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.leave();
        self.waiter.leave(CancelCause::Abandoned);
    }
}

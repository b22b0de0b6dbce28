//! Sends answers, in the order of their batches where the configuration promises it.

use inference::Result;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Answer;
use crate::batcher::order::InOrder;

/// An answer and whom it is for.
pub(super) struct Reply {
    pub(super) to: oneshot::Sender<Result<Answer>>,
    pub(super) answer: Answer,
}

/// Where answers leave.
pub(super) struct Replies(Option<Mutex<InOrder<Vec<Reply>>>>);

impl Replies {
    pub(super) fn new(in_order: bool) -> Self {
        Replies(in_order.then(Mutex::default))
    }

    /// Sends the answers of the batch numbered `batch`, once those of all batches before it are out.
    pub(super) fn send(&self, batch: u64, replies: Vec<Reply>) {
        let send = |replies: Vec<Reply>| {
            for Reply { to, answer } in replies {
                // Whoever is gone needs no answer.
                let _ = to.send(Ok(answer));
            }
        };
        match &self.0 {
            None => send(replies),
            Some(order) => {
                // Sent under the lock, or another batch could come in between.
                let mut order = order.lock();
                order.finish(batch, replies).into_iter().for_each(send);
            }
        }
    }

    /// A batch that has not sent its answers yet holds up nobody any longer.
    pub(super) fn skip(&self, batch: u64) {
        if self.0.is_some() {
            self.send(batch, Vec::new());
        }
    }
}

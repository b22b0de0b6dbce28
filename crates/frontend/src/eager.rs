//! Where an HTTP/2 stream's work begins: in its connection's task, as HTTP/1's does. A short message is there as soon as its
//! stream is, and its answer often soon after; handing such work to another task and back costs more than doing it. What has
//! to wait goes on in a task of its own, so that streams do not wait for each other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};

use hyper::rt::Executor;

/// Polls once, then spawns what is not done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Eager;

impl<F> Executor<F> for Eager
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let mut future = Box::pin(future);
        // A task that is spawned is polled at once, so that nothing needs to wake this first poll.
        let mut context = Context::from_waker(Waker::noop());
        let first = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        // A panic is told where it happens, and ends its own stream, as in a task.
        if let Ok(Poll::Pending) = first {
            tokio::spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_ready_is_done_at_once_and_the_rest_elsewhere() {
        let (done, mut is_done) = oneshot::channel();
        Eager.execute(async move { done.send(tokio::task::try_id()).expect("the test waits") });
        assert_eq!(is_done.try_recv(), Ok(tokio::task::try_id()), "in the same task");

        let (go_on, told) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        Eager.execute(async move {
            told.await.expect("the test says so");
            done.send(tokio::task::try_id()).expect("the test waits");
        });
        go_on.send(()).expect("it waits");
        let task = is_done.await.expect("it goes on");
        assert!(task.is_some() && task != tokio::task::try_id(), "in a task of its own");
    }

    #[tokio::test]
    async fn a_panic_stays_within() {
        Eager.execute(async { panic!("a stream's own") });
    }
}

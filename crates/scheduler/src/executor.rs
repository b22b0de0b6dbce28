//! Bounds how many models run at once, and runs them without stalling the tasks around them.

use std::num::NonZeroUsize;
use std::sync::Arc;

use inference::{Error, Result};
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// The right to run something, one of as many as there are places in the [`Executor`]; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct ExecutionPermit(#[expect(dead_code, reason = "held, never read")] OwnedSemaphorePermit);

/// Bounds how many executions run at once in the whole process; clones share the bound. Who waits is served in order.
#[derive(Clone, Debug)]
pub struct Executor {
    permits: Arc<Semaphore>,
}

impl Executor {
    /// At most `concurrency` executions at once.
    pub fn new(concurrency: NonZeroUsize) -> Self {
        Executor { permits: Arc::new(Semaphore::new(concurrency.get().min(Semaphore::MAX_PERMITS))) }
    }

    /// A permit, if one is free and nobody waits for it.
    pub(crate) fn try_permit(&self) -> Option<ExecutionPermit> {
        self.permits.clone().try_acquire_owned().ok().map(ExecutionPermit)
    }

    /// Waits for a permit.
    pub(crate) async fn permit(&self) -> ExecutionPermit {
        let permit = self.permits.clone().acquire_owned().await;
        ExecutionPermit(permit.expect("invariant: this semaphore is never closed"))
    }
}

/// Runs blocking `work` while a permit is held, in a task of its own: whoever waits for it goes on being polled, so that a
/// client that goes away is noticed and time limits hold. On a multi-thread runtime the work stays on the thread that the
/// task happens to be on, which the runtime replaces meanwhile; a hop to another thread costs 50 µs. A current-thread
/// runtime has no thread to spare, so there it hops.
///
/// Once begun, work runs to its end, even when this future is dropped. Past `deadline` nobody waits for it any more, and its
/// permit is given back: work that hangs takes no turn of others.
///
/// # Errors
/// [`Overdue`]; Unavailable when the runtime shuts down before the work begins.
pub(crate) async fn run_blocking<T: Send + 'static>(
    permit: ExecutionPermit,
    deadline: Option<Instant>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Result<T, Overdue>> {
    let permit = Arc::new(Mutex::new(Some(permit)));
    let held = permit.clone();
    let work = move || {
        let result = work();
        drop(held.lock().take());
        result
    };
    let running = match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => tokio::task::spawn_blocking(work),
        _ => tokio::spawn(async move { tokio::task::block_in_place(work) }),
    };
    let ended = match deadline {
        None => running.await,
        Some(deadline) => match timeout_at(deadline, running).await {
            Ok(ended) => ended,
            Err(_elapsed) => {
                permit.lock().take();
                return Ok(Err(Overdue));
            }
        },
    };
    ended.map(Ok).map_err(|error| {
        Error::unavailable("the server is shutting down, the request was not run; send it again").with_source(error)
    })
}

/// The work was not done in time. It goes on, and its result is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overdue;

/// What the caller of an overdue execution is told.
pub(crate) fn overdue(model: &str) -> Error {
    Error::deadline_exceeded(format!(
        "model '{model}' took longer than the request may; raise --infer-timeout, the model's parameter infer_timeout, or the \
         request's own timeout"
    ))
    .from_model()
}

//! Bounds how many models run at once, and runs them without stalling the tasks around them.

use std::num::NonZeroUsize;
use std::sync::Arc;

use inference::{Error, Result};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Runs blocking `work` while `permit` is held. On a multi-thread runtime it runs in the calling task, whose thread the
/// runtime replaces meanwhile: that costs 2 µs, a hop to another thread 50. A current-thread runtime has no thread to
/// spare, so there it hops.
///
/// Once begun, work runs to its end, even when this future is dropped.
///
/// # Errors
/// Unavailable when the runtime shuts down before the work begins.
pub(crate) async fn run_blocking<T: Send + 'static>(
    permit: ExecutionPermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let work = move || {
        let result = work();
        drop(permit);
        result
    };
    if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
        return Ok(tokio::task::block_in_place(work));
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::unavailable("the server is shutting down, the request was not run; send it again").with_source(error)
    })
}

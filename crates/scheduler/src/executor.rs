//! Bounds how many models run at once, and runs them without stalling the tasks around them.

use std::num::NonZeroUsize;
use std::sync::Arc;

use inference::{Device, Error, RateLimiter, Result};
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::limits::{Grant, Limits, ModelLimits, ResourceLimit};
use crate::refusal::lost;

/// The right to run something, one of as many as there are places in the [`Executor`]; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct ExecutionPermit(Permit);

#[derive(Debug)]
enum Permit {
    Place(#[expect(dead_code, reason = "held, never read")] OwnedSemaphorePermit),
    Limited(Grant),
}

impl ExecutionPermit {
    /// Which instance of its model it is for; where rates are not limited it does not matter.
    fn instance(&self) -> usize {
        match &self.0 {
            Permit::Limited(grant) => grant.instance(),
            Permit::Place(_) => 0,
        }
    }

    /// Gives it back without having run anything.
    pub(crate) fn unused(self) {
        if let Permit::Limited(grant) = self.0 {
            grant.unused();
        }
    }
}

/// Executions that may wait for their clients at once without a permit. Each occupies a thread, and the runtime has some
/// hundreds of those.
const PARKING_PLACES: usize = 128;

/// Bounds how many executions run at once in the whole process; clones share the bound. Who waits is served in order.
#[derive(Clone, Debug)]
pub struct Executor {
    permits: Arc<Semaphore>,
    parking: Arc<Semaphore>,
    /// The server's rate limiter, where it has one; it counts the places, too.
    limits: Option<Arc<Limits>>,
    /// The account of the one model that this executor is for.
    account: Option<Arc<ModelLimits>>,
}

impl Executor {
    /// At most `concurrency` executions at once.
    pub fn new(concurrency: NonZeroUsize) -> Self {
        let permits = Semaphore::new(concurrency.get().min(Semaphore::MAX_PERMITS));
        let (permits, parking) = (Arc::new(permits), Arc::new(Semaphore::new(PARKING_PLACES)));
        Executor { permits, parking, limits: None, account: None }
    }

    /// The same, where instances run only when the resources that they need are free, by their priorities.
    pub fn with_rate_limits(concurrency: NonZeroUsize, limits: Vec<ResourceLimit>) -> Self {
        Executor { limits: Some(Limits::new(concurrency, limits)), ..Executor::new(concurrency) }
    }

    /// The executor for a model whose instances are on these devices and ask for this.
    ///
    /// # Errors
    /// InvalidArgument when rates are limited and there is not as much of a resource as an instance needs.
    pub fn for_model(&self, name: &str, instances: &[(Device, RateLimiter)]) -> Result<Executor> {
        let account = self.limits.as_ref().map(|limits| limits.open(name, instances)).transpose()?;
        Ok(Executor { account, ..self.clone() })
    }

    /// A permit for an instance, if it can have one now and nobody is before it.
    pub(crate) fn try_permit(&self, instance: usize) -> Option<ExecutionPermit> {
        let permit = match &self.account {
            Some(account) => Permit::Limited(account.try_grant(instance)?),
            None => Permit::Place(self.permits.clone().try_acquire_owned().ok()?),
        };
        Some(ExecutionPermit(permit))
    }

    /// Waits for a permit for an instance.
    pub(crate) async fn permit(&self, instance: usize) -> ExecutionPermit {
        ExecutionPermit(match &self.account {
            Some(account) => Permit::Limited(account.grant(instance).await),
            None => {
                let permit = self.permits.clone().acquire_owned().await;
                Permit::Place(permit.expect("invariant: this semaphore is never closed"))
            }
        })
    }
}

/// Runs blocking `work` while a permit is held, in a task of its own: whoever waits for it goes on being polled, so that a
/// client that goes away is noticed and time limits hold. On a multi-thread runtime the work stays on the thread that the
/// task happens to be on, which the runtime replaces meanwhile; a hop to another thread costs 50 µs. A current-thread
/// runtime has no thread to spare, so there it hops.
///
/// Once begun, work runs to its own end, even when this future is dropped: whoever calls this cancels it then, if it can be.
/// Past `deadline` nobody waits for it any more, and its permit is given back: work that hangs takes no turn of others.
///
/// # Errors
/// [`Overdue`]; Unavailable when the runtime shuts down before the work begins; Internal when the work panics.
pub(crate) async fn run_blocking<T: Send + 'static>(
    permit: ExecutionPermit,
    deadline: Option<Instant>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Result<T, Overdue>> {
    let permit = Arc::new(Mutex::new(Some(permit)));
    let running = start_blocking(permit.clone(), work);
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
    ended.map(Ok).map_err(lost)
}

/// A permit that may be given back before its work is done.
type HeldPermit = Arc<Mutex<Option<ExecutionPermit>>>;

fn start_blocking<T: Send + 'static>(held: HeldPermit, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let work = move || {
        let result = work();
        drop(held.lock().take());
        result
    };
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => tokio::task::spawn_blocking(work),
        _ => tokio::spawn(async move { tokio::task::block_in_place(work) }),
    }
}

/// The permit of work that waits for its client now and then.
#[derive(Clone)]
pub(crate) struct PermitSlot {
    executor: Executor,
    instance: usize,
    held: HeldPermit,
}

impl PermitSlot {
    pub(crate) fn new(executor: Executor, permit: ExecutionPermit) -> Self {
        PermitSlot { executor, instance: permit.instance(), held: Arc::new(Mutex::new(Some(permit))) }
    }

    /// As [`run_blocking`], but nobody waits here.
    pub(crate) fn start<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        start_blocking(self.held.clone(), work)
    }

    /// Gives the permit back for good: the work is overdue.
    pub(crate) fn give_up(&self) {
        drop(self.held.lock().take());
    }

    /// Gives the permit back while the work waits, if there is a place to wait.
    pub(crate) fn park(&self) -> Parked<'_> {
        let place = self.executor.parking.try_acquire().ok();
        let given_back = place.is_some() && self.held.lock().take().is_some();
        Parked { slot: self, given_back, _place: place }
    }
}

/// Work that waits.
pub(crate) struct Parked<'s> {
    slot: &'s PermitSlot,
    given_back: bool,
    _place: Option<SemaphorePermit<'s>>,
}

impl Parked<'_> {
    /// Waits for a permit, if one was given back; blocks.
    pub(crate) fn resume(self) {
        if self.given_back {
            let permit = futures::executor::block_on(self.slot.executor.permit(self.slot.instance));
            *self.slot.held.lock() = Some(permit);
        }
    }
}

/// The work was not done in time. Its result is lost.
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

#[cfg(test)]
mod tests {
    use inference::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_no_shutdown_and_gives_its_place_back() {
        let executor = Executor::new(NonZeroUsize::MIN);
        let permit = executor.permit(0).await;
        // As a panic, without the noise of one.
        let ended = run_blocking(permit, None, || std::panic::resume_unwind(Box::new("at work"))).await;
        let error = ended.map(|ended: Result<(), Overdue>| ended.is_ok()).expect_err("it panicked");
        assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
        executor.try_permit(0).expect("it is free again");
    }
}

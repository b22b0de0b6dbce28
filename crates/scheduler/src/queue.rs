//! Where requests of one model wait for an instance and for their turn in the process.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use inference::Result;
use metrics::Gauge;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::batcher::Full;
use crate::executor::{ExecutionPermit, Executor};
use crate::instances::{InstancePool, Lease};
use crate::refusal::{late, queue_full, shutting_down};

/// The queue of one model. Waiting requests are futures: dropping one takes it out of the queue.
pub(crate) struct Queue {
    pub(crate) instances: Arc<InstancePool>,
    pub(crate) executor: Executor,
    pub(crate) max_size: usize,
    pub(crate) waiting: AtomicUsize,
    pub(crate) pending: Gauge,
}

/// All that a request needs to run.
pub(crate) struct Turn {
    pub(crate) instance: Lease,
    pub(crate) permit: ExecutionPermit,
}

impl Queue {
    /// Waits for this request's turn, at most until `deadline`, and then awaits what `run` makes of it.
    ///
    /// What has to wait goes on in a task of its own. Nobody may poll this future for as long as a client reads nothing from
    /// the stream that it is a part of; instances and places in the process are given to those who wait in their order, and
    /// what is given to somebody asleep is kept from everybody else.
    ///
    /// # Errors
    /// Overloaded when too many wait; Unavailable when the deadline passes (as Triton has it) or no instance is left; what
    /// `run` ends in.
    pub(crate) async fn in_turn<T, F>(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        run: impl FnOnce(Turn) -> F + Send + 'static,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send + 'static,
    {
        self.refuse_late(deadline)?;
        let instance = match self.instances.try_lease()? {
            Some(instance) => match self.executor.try_permit(instance.index()) {
                Some(permit) => return run(Turn { instance, permit }).await,
                None => Some(instance),
            },
            None => None,
        };
        let place = self.enter()?;
        let mut turn = Box::pin(self.clone().wait(instance, deadline, place.clone()));
        // Asked here for the first time: requests wait in the order in which they came, not in that of their tasks.
        if let Poll::Ready(turn) = futures::poll!(&mut turn) {
            return run(turn?).await;
        }
        let waiting = tokio::spawn(async move { run(turn.await?).await });
        let ended = AbortOnDropHandle::new(waiting).await;
        drop(place);
        ended.unwrap_or_else(|gone| match gone.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(gone) => Err(shutting_down(gone)),
        })
    }

    async fn wait(self: Arc<Self>, instance: Option<Lease>, deadline: Option<Instant>, place: Place) -> Result<Turn> {
        let turn = async {
            let instance = match instance {
                Some(instance) => instance,
                None => self.instances.lease().await?,
            };
            let permit = self.executor.permit(instance.index()).await;
            Ok(Turn { instance, permit })
        };
        let turn = match deadline {
            Some(deadline) => timeout_at(deadline, turn).await.map_err(|_elapsed| late(self.instances.model()))??,
            None => turn.await?,
        };
        drop(place);
        // A busy runtime may poll this long after the time is over; nobody waits for the answer then.
        self.refuse_late(deadline)?;
        Ok(turn)
    }

    fn enter(self: &Arc<Self>) -> Result<Place> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        self.pending.increment(1.0);
        let place = Place(Arc::new(Entry { queue: self.clone(), left: AtomicBool::new(false) }));
        match before >= self.max_size {
            true => Err(queue_full(self.instances.model(), Full::Queue(self.max_size))),
            false => Ok(place),
        }
    }

    fn refuse_late(&self, deadline: Option<Instant>) -> Result<()> {
        match deadline {
            Some(deadline) if deadline <= Instant::now() => Err(late(self.instances.model())),
            _ => Ok(()),
        }
    }
}

/// A place in the queue. The first clone that is dropped gives it up: the turn has come, or nobody waits for it any more.
#[derive(Clone)]
struct Place(Arc<Entry>);

struct Entry {
    queue: Arc<Queue>,
    left: AtomicBool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Entry { queue, left } = &*self.0;
        if !left.swap(true, Ordering::Relaxed) {
            queue.waiting.fetch_sub(1, Ordering::Relaxed);
            queue.pending.decrement(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use inference::{Batch, InferResponse, ModelInstance};

    use super::*;

    struct Idle;

    impl ModelInstance for Idle {
        fn execute(&mut self, _: Batch) -> Vec<Result<InferResponse>> {
            unreachable!("nobody runs it")
        }
    }

    #[tokio::test]
    async fn a_panic_after_waiting_is_a_panic_and_no_shutdown() {
        let queue = Arc::new(Queue {
            instances: InstancePool::new("m".into(), vec![Box::new(Idle)]),
            executor: Executor::new(NonZeroUsize::MIN),
            max_size: 1,
            waiting: AtomicUsize::new(0),
            pending: Gauge::noop(),
        });
        let lent = queue.instances.try_lease().expect("alive").expect("free");
        let waiting = queue.clone();
        let request = tokio::spawn(async move {
            // As a panic, without the noise of one.
            waiting.in_turn::<(), _>(None, |_turn| async { resume_unwind(Box::new("in its turn")) }).await
        });
        while queue.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        drop(lent);
        let ended = request.await.expect_err("it panicked");
        assert_eq!(ended.into_panic().downcast_ref(), Some(&"in its turn"));
        assert_eq!(queue.waiting.load(Ordering::Relaxed), 0);
        assert!(queue.instances.has_free(), "what it had is given back");
    }
}

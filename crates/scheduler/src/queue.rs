//! Where requests of one model wait for an instance and for their turn in the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use inference::{Error, Result};
use metrics::Gauge;
use tokio::time::{Instant, timeout_at};

use crate::executor::{ExecutionPermit, Executor};
use crate::instances::{InstancePool, Lease};

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
    /// Waits for this request's turn, at most until `deadline`.
    ///
    /// # Errors
    /// Overloaded when too many wait; Unavailable when the deadline passes (as Triton has it) or no instance is left.
    pub(crate) async fn turn(&self, deadline: Option<Instant>) -> Result<Turn> {
        self.refuse_late(deadline)?;
        let instance = match self.instances.try_lease()? {
            Some(instance) => match self.executor.try_permit(instance.index()) {
                Some(permit) => return Ok(Turn { instance, permit }),
                None => Some(instance),
            },
            None => None,
        };
        let place = self.enter()?;
        let turn = self.wait(instance);
        let turn = match deadline {
            Some(deadline) => timeout_at(deadline, turn).await.map_err(|_elapsed| late(self.instances.model()))??,
            None => turn.await?,
        };
        drop(place);
        // A busy runtime may poll this long after the time is over; nobody waits for the answer then.
        self.refuse_late(deadline)?;
        Ok(turn)
    }

    async fn wait(&self, instance: Option<Lease>) -> Result<Turn> {
        let instance = match instance {
            Some(instance) => instance,
            None => self.instances.lease().await?,
        };
        let permit = self.executor.permit(instance.index()).await;
        Ok(Turn { instance, permit })
    }

    fn enter(&self) -> Result<Place<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        self.pending.increment(1.0);
        let place = Place(self);
        if before >= self.max_size {
            return Err(Error::overloaded(format!(
                "Exceeds maximum queue size: {} requests wait for model '{}' already, as many as max_queue_size allows; \
                 send it again later",
                self.max_size,
                self.instances.model()
            )));
        }
        Ok(place)
    }

    fn refuse_late(&self, deadline: Option<Instant>) -> Result<()> {
        match deadline {
            Some(deadline) if deadline <= Instant::now() => Err(late(self.instances.model())),
            _ => Ok(()),
        }
    }
}

/// The time that a request may wait is over.
pub(crate) fn late(model: &str) -> Error {
    Error::unavailable(format!("Request timeout expired while it waited for model '{model}'"))
}

/// A place in the queue.
struct Place<'q>(&'q Queue);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.pending.decrement(1.0);
    }
}

//! The instances of one model: lent to one request at a time, in order of arrival; one that panics is not used again.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use inference::{Batch, Error, InferRequest, InferResponse, ModelInstance, ModelName, ResponseSink, Result};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Instances of one model.
///
/// Each living instance is in `free` or in exactly one [`Lease`]; `permits` has as many permits as there are living
/// instances, and is closed once none is left.
pub(crate) struct InstancePool {
    model: ModelName,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    /// Each with its place among the model's instances.
    free: Vec<(usize, Box<dyn ModelInstance>)>,
    alive: usize,
    /// What the last panic said.
    panic: Option<String>,
}

impl InstancePool {
    pub(crate) fn new(model: ModelName, instances: Vec<Box<dyn ModelInstance>>) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(instances.len()));
        if instances.is_empty() {
            permits.close();
        }
        let state = State { alive: instances.len(), free: instances.into_iter().enumerate().collect(), panic: None };
        Arc::new(InstancePool { model, permits, state: Mutex::new(state) })
    }

    /// The model whose instances these are.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// How many instances can still be used.
    pub(crate) fn alive(&self) -> usize {
        self.state.lock().alive
    }

    /// Whether an instance is free and nobody waits for it.
    pub(crate) fn has_free(&self) -> bool {
        self.permits.available_permits() > 0
    }

    /// An instance, if one is free and nobody waits for it.
    ///
    /// # Errors
    /// Unavailable when no instance is left.
    pub(crate) fn try_lease(self: &Arc<Self>) -> Result<Option<Lease>> {
        match self.permits.clone().try_acquire_owned() {
            Ok(permit) => Ok(Some(self.lend(permit))),
            Err(TryAcquireError::NoPermits) => Ok(None),
            Err(TryAcquireError::Closed) => Err(self.nothing_left()),
        }
    }

    /// Waits for an instance, in order of arrival.
    ///
    /// # Errors
    /// Unavailable when no instance is left.
    pub(crate) async fn lease(self: &Arc<Self>) -> Result<Lease> {
        match self.permits.clone().acquire_owned().await {
            Ok(permit) => Ok(self.lend(permit)),
            Err(_closed) => Err(self.nothing_left()),
        }
    }

    fn lend(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Lease {
        let instance = self.state.lock().free.pop();
        debug_assert!(instance.is_some(), "as many permits as instances");
        let (index, instance) = instance.map_or((0, None), |(index, instance)| (index, Some(instance)));
        Lease { pool: self.clone(), index, instance, permit: Some(permit) }
    }

    /// An instance is gone for good.
    fn lost(&self, panic: String) {
        let mut state = self.state.lock();
        state.alive -= 1;
        state.panic = Some(panic);
        if state.alive == 0 {
            self.permits.close();
        }
    }

    fn nothing_left(&self) -> Error {
        let why = match &self.state.lock().panic {
            Some(panic) => format!("every instance of it panicked (the last one with: {panic}); load it again"),
            None => "it was loaded without instances".to_owned(),
        };
        Error::unavailable(format!("model '{}' cannot run: {why}", self.model)).with_model(&*self.model)
    }
}

/// An instance for one execution; it goes back when this is dropped.
pub(crate) struct Lease {
    pool: Arc<InstancePool>,
    index: usize,
    instance: Option<Box<dyn ModelInstance>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Lease {
    /// See [`ModelInstance::is_brief`].
    pub(crate) fn is_brief(&self, batch: &Batch) -> bool {
        self.instance.as_ref().is_some_and(|instance| instance.is_brief(batch))
    }

    /// The model whose instance this is.
    pub(crate) fn model(&self) -> &str {
        self.pool.model()
    }

    /// The instance's place among the model's.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Whether the instance has not panicked.
    pub(crate) fn is_alive(&self) -> bool {
        self.instance.is_some()
    }

    /// Runs one batch; blocks.
    ///
    /// # Errors
    /// Internal, by the model, when the instance panics; it is dropped then, and Unavailable from then on.
    pub(crate) fn execute(&mut self, batch: Batch) -> Result<Vec<Result<InferResponse>>> {
        let Some(instance) = self.instance.as_mut() else { return Err(self.pool.nothing_left()) };
        catch_unwind(AssertUnwindSafe(|| instance.execute(batch))).map_err(|payload| self.bury(payload.as_ref()))
    }

    /// Runs one request of a decoupled model; blocks. The responses may go on after that.
    ///
    /// # Errors
    /// Internal, by the model, when the instance panics; it is dropped then.
    pub(crate) fn stream(mut self, request: InferRequest, responses: Box<dyn ResponseSink>) -> Result<()> {
        let instance = self.instance.as_mut().expect("invariant: a lease holds its instance until it ends");
        let streamed = catch_unwind(AssertUnwindSafe(|| instance.stream(request, responses)));
        streamed.map_err(|payload| self.bury(payload.as_ref()))
    }

    fn bury(&mut self, payload: &(dyn Any + Send)) -> Error {
        let panic = panic_message(payload);
        let model = self.pool.model.clone();
        tracing::error!(model = &*model, panic, "a model instance panicked and is not used again");
        if let Some(permit) = self.permit.take() {
            permit.forget();
        }
        self.pool.lost(panic.clone());
        // What a panic left behind may panic again while it is dropped.
        let broken = self.instance.take();
        if catch_unwind(AssertUnwindSafe(|| drop(broken))).is_err() {
            tracing::error!(model = &*model, "the instance panicked again while it was dropped");
        }
        Error::internal(format!("model '{model}' panicked: {panic}")).with_model(&*model).from_model()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The permit is a field and goes back after this, so that whoever gets it finds the instance.
        if let Some(instance) = self.instance.take() {
            self.pool.state.lock().free.push((self.index, instance));
        }
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

//! One version of one loaded model, ready to answer requests.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant as StdInstant;

use inference::{
    Batch, BoxFuture, ComputeTiming, Error, InferRequest, InferResponse, InferenceService, LoadedModel, MemoryUsage,
    ModelInfo, ModelSpec, Result,
};
use tokio::time::Instant;

use crate::answer::{Expectation, conform, prepare};
use crate::config::SchedulerConfig;
use crate::executor::{Executor, Overdue, run_blocking};
use crate::instances::InstancePool;
use crate::metric::{ModelMetrics, Served};
use crate::queue::{Queue, Turn};

/// One version of one loaded model: checks requests, lets them wait for an instance, runs them, checks the answers.
///
/// Dropping the last reference frees the model, once the executions that run have ended.
pub struct ScheduledModel {
    info: Arc<ModelInfo>,
    memory: MemoryUsage,
    queue: Queue,
    config: SchedulerConfig,
    metrics: ModelMetrics,
}

impl ScheduledModel {
    /// Takes over a loaded model; as many requests run at once as it has instances and `executor` has places.
    pub fn new(
        info: Arc<ModelInfo>,
        loaded: LoadedModel,
        executor: Executor,
        config: SchedulerConfig,
        metrics: ModelMetrics,
    ) -> Arc<Self> {
        let queue = Queue {
            instances: InstancePool::new(info.spec.name.clone(), loaded.instances),
            executor,
            max_size: config.max_queue_size,
            waiting: AtomicUsize::new(0),
            pending: metrics.pending(),
        };
        Arc::new(ScheduledModel { info, memory: loaded.memory, queue, config, metrics })
    }

    /// What can be told about the model.
    pub fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    /// What its backend says that it takes.
    pub fn memory(&self) -> &MemoryUsage {
        &self.memory
    }

    async fn serve(&self, request: InferRequest, arrived: Instant) -> Result<(InferResponse, Served)> {
        let spec = &*self.info.spec;
        let deadline = self.config.deadline(spec, &request, arrived.into_std()).map(Instant::from_std);
        let (request, expected) = prepare(spec, request)?;
        let turn = self.queue.turn(deadline).await.map_err(|error| name_model(spec, error))?;
        let queued = arrived.elapsed();
        self.metrics.waited(queued);
        let response = self.execute(turn, deadline, request).await.map_err(|error| name_model(spec, error))?;
        let served = Served { batch_size: expected.batch_size(), queued, compute: response.timing };
        Ok((self.finish(&expected, response)?, served))
    }

    /// Runs the request as a batch of its own.
    async fn execute(&self, turn: Turn, deadline: Option<Instant>, request: InferRequest) -> Result<InferResponse> {
        let Turn { instance, permit } = turn;
        let batch = Batch { requests: vec![request] };
        let is_brief = instance.is_brief(&batch);
        let work = move || {
            let begin = StdInstant::now();
            (instance.execute(batch), begin.elapsed())
        };
        let (results, took) = match is_brief {
            true => work(),
            false => run_blocking(permit, deadline, work).await?.map_err(|Overdue| self.overdue())?,
        };
        self.metrics.executed();
        let mut response = only_one(results?)??;
        if response.timing == ComputeTiming::default() {
            response.timing.infer = took;
        }
        Ok(response)
    }

    fn overdue(&self) -> Error {
        Error::deadline_exceeded(format!(
            "model '{}' took longer than the request may; raise --infer-timeout, the model's parameter infer_timeout, or the \
             request's own timeout",
            self.info.spec.name
        ))
        .from_model()
    }

    fn finish(&self, expected: &Expectation, mut response: InferResponse) -> Result<InferResponse> {
        response.outputs = conform(&self.info.spec, expected, response.outputs)?;
        response.model = Some(self.info.clone());
        Ok(response)
    }
}

impl InferenceService for ScheduledModel {
    fn infer(&self, request: InferRequest) -> BoxFuture<'_, Result<InferResponse>> {
        Box::pin(async move {
            let arrived = Instant::now();
            let outcome = self.metrics.arrival(arrived);
            outcome.end(self.serve(request, arrived).await)
        })
    }

    /// Whether an instance is left; those that panicked are gone.
    fn is_usable(&self) -> bool {
        self.queue.instances.alive() > 0
    }
}

fn only_one(mut results: Vec<Result<InferResponse>>) -> Result<Result<InferResponse>> {
    match (results.pop(), results.len()) {
        (Some(result), 0) => Ok(result),
        (last, others) => {
            let count = others + usize::from(last.is_some());
            Err(Error::internal(format!("a backend returned {count} results for a batch of 1 request")).from_model())
        }
    }
}

/// Errors of backends may not say which model they are about.
fn name_model(spec: &ModelSpec, error: Error) -> Error {
    if error.model().is_some() { error } else { error.with_model(&*spec.name) }
}

//! One version of one loaded model, ready to answer requests.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use inference::{
    Batch, BoxFuture, BoxStream, Error, InferRequest, InferResponse, InferenceService, LoadedModel, MemoryUsage,
    ModelInfo, ModelInstance, ModelSpec, Result,
};
use tokio::time::Instant;

use crate::answer::{Expectation, conform, prepare};
use crate::audience::SoleWaiter;
use crate::config::SchedulerConfig;
use crate::decoupled;
use crate::dynamic::{Answer, DynamicQueue};
use crate::executor::{Executor, Overdue, overdue, run_blocking};
use crate::instances::InstancePool;
use crate::metric::{ModelMetrics, Served};
use crate::queue::{Queue, Turn};
use crate::sequence::SequenceQueue;
use crate::spans;
use crate::together::run_batch;

/// One version of one loaded model: checks requests, lets them wait for an instance, runs them, checks the answers.
///
/// Dropping the last reference frees the model, once the executions that run have ended.
pub struct ScheduledModel {
    pub(crate) info: Arc<ModelInfo>,
    memory: MemoryUsage,
    pub(crate) line: Line,
    pub(crate) config: SchedulerConfig,
    pub(crate) metrics: Arc<ModelMetrics>,
}

/// Where requests wait.
pub(crate) enum Line {
    /// Each runs on its own.
    Single(Arc<Queue>),
    /// Those that wait together run together.
    Batching(Arc<DynamicQueue>),
    /// Those of a sequence run one after the other on one instance.
    Sequences(Arc<SequenceQueue>),
}

impl Line {
    fn without_sequences(
        spec: &Arc<ModelSpec>,
        instances: Vec<Box<dyn ModelInstance>>,
        executor: Executor,
        config: &SchedulerConfig,
        metrics: &Arc<ModelMetrics>,
    ) -> Line {
        let instances = InstancePool::new(spec.name.clone(), instances);
        let batching = DynamicQueue::new(spec.clone(), instances.clone(), executor.clone(), config, metrics.clone());
        let (max_size, waiting) = (config.max_queue_size, AtomicUsize::new(0));
        let single = || Queue { instances, executor, max_size, waiting, pending: metrics.pending() };
        batching.map_or_else(|| Line::Single(Arc::new(single())), Line::Batching)
    }
}

impl ScheduledModel {
    /// Takes over a loaded model; as many requests run at once as it has instances and `executor` has places.
    pub fn new(
        info: Arc<ModelInfo>,
        mut loaded: LoadedModel,
        executor: Executor,
        config: SchedulerConfig,
        metrics: ModelMetrics,
    ) -> Arc<Self> {
        let (metrics, max_size) = (Arc::new(metrics), config.max_queue_size);
        let line = match SequenceQueue::new(&info.spec, &mut loaded, &executor, max_size, &metrics) {
            Some(queue) => Line::Sequences(queue),
            None => Line::without_sequences(&info.spec, loaded.instances, executor, &config, &metrics),
        };
        Arc::new(ScheduledModel { info, memory: loaded.memory, line, config, metrics })
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
        decoupled::refuse_single(spec)?;
        let deadline = self.config.deadline(spec, &request, arrived.into_std()).map(Instant::from_std);
        let (request, expected) = prepare(spec, request)?;
        let answer = match &self.line {
            Line::Single(queue) => self.run_alone(queue, request, &expected, arrived, deadline).await,
            Line::Batching(queue) => queue.run(request, expected.batch, arrived, deadline).await,
            Line::Sequences(queue) => queue.run(request, expected.batch, arrived, deadline).await,
        };
        let Answer { queued, result } = answer.map_err(|error| name_model(spec, error))?;
        let response = result.map_err(|error| name_model(spec, error))?;
        let served = Served { batch_size: expected.batch_size(), queued, compute: response.timing };
        Ok((self.finish(&expected, response)?, served))
    }

    /// Runs the request as a batch of its own, once it is its turn.
    async fn run_alone(
        &self,
        queue: &Arc<Queue>,
        request: InferRequest,
        expected: &Expectation,
        arrived: Instant,
        deadline: Option<Instant>,
    ) -> Result<Answer> {
        let (spec, metrics, rows) = (self.info.spec.clone(), self.metrics.clone(), expected.batch_size());
        let run = async move |Turn { instance, permit }| {
            let queued = arrived.elapsed();
            metrics.waited(queued);
            let mut batch = Batch::new(vec![request]);
            let result = match instance.is_brief(&batch) {
                true => run_batch(&spec, instance, batch),
                false => {
                    let (of_batch, waiter) = (spec.clone(), SoleWaiter::new());
                    batch.cancellation = waiter.cancellation();
                    let execution = run_blocking(permit, deadline, move || run_batch(&of_batch, instance, batch));
                    execution.await?.map_err(|Overdue| {
                        waiter.give_up();
                        overdue(&spec.name)
                    })?
                }
            };
            metrics.executed(rows, result.as_ref().ok().map(|response| &response.timing));
            Ok(Answer { queued, result })
        };
        queue.in_turn(deadline, run).await
    }

    pub(crate) fn finish(&self, expected: &Expectation, mut response: InferResponse) -> Result<InferResponse> {
        response.outputs = conform(&self.info.spec, expected, response.outputs)?;
        response.model = Some(self.info.clone());
        Ok(response)
    }
}

impl InferenceService for ScheduledModel {
    fn infer(&self, mut request: InferRequest) -> BoxFuture<'_, Result<InferResponse>> {
        Box::pin(async move {
            let arrived = Instant::now();
            let span = spans::begin(&self.info, &mut request);
            let outcome = self.metrics.arrival(arrived);
            let served = self.serve(request, arrived).await;
            if let Some(span) = span {
                spans::end(span, arrived.into_std(), &served);
            }
            outcome.end(served)
        })
    }

    fn infer_stream(&self, request: InferRequest) -> BoxStream<'_, Result<InferResponse>> {
        match self.info.spec.decoupled {
            true => self.stream(request),
            false => Box::pin(futures::stream::once(self.infer(request))),
        }
    }

    /// Whether an instance is left; those that panicked are gone.
    fn is_usable(&self) -> bool {
        match &self.line {
            Line::Single(queue) => queue.instances.alive() > 0,
            Line::Batching(queue) => queue.instances.alive() > 0,
            Line::Sequences(queue) => queue.alive() > 0,
        }
    }

    /// Whether a sequence has begun and neither ended nor been idle for too long.
    fn is_busy(&self) -> bool {
        match &self.line {
            Line::Single(_) | Line::Batching(_) => false,
            Line::Sequences(queue) => queue.is_live(),
        }
    }
}

/// Errors of backends may not say which model they are about.
pub(crate) fn name_model(spec: &ModelSpec, error: Error) -> Error {
    if error.model().is_some() { error } else { error.with_model(&*spec.name) }
}

//! Runs ensembles: every step starts the moment its inputs are there.

mod progress;
mod stream;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use inference::{
    BoxFuture, BoxStream, ComputeTiming, Error, InferRequest, InferResponse, InferenceService, ModelInfo, ModelKey,
    NamedTensor, Parameters, Result, TensorName, Trace,
};
use tokio::time::Instant;

use crate::answer::{Expectation, conform, prepare};
use crate::config::SchedulerConfig;
use crate::decoupled;
use crate::ensemble_plan::{Demand, EnsemblePlan};
use crate::metric::{ModelMetrics, Served};
use crate::spans;
use progress::Progress;

/// An ensemble whose composing models are at hand. It has no queue: its steps wait in those of their models.
pub struct Ensemble {
    info: Arc<ModelInfo>,
    plan: EnsemblePlan,
    steps: Vec<Arc<dyn InferenceService>>,
    config: SchedulerConfig,
    metrics: ModelMetrics,
}

/// One request to the ensemble, apart from its tensors.
struct Run<'e> {
    id: String,
    parameters: Parameters,
    deadline: Option<StdInstant>,
    trace: Option<Trace>,
    wanted: Vec<TensorName>,
    demand: Cow<'e, Demand>,
    queued: Duration,
}

impl Run<'_> {
    fn wants(&self, output: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| &**wanted == output)
    }
}

impl Ensemble {
    /// An ensemble that runs `plan` on `steps`: the services of [`EnsemblePlan::steps`], in that order.
    ///
    /// # Panics
    /// When there are not exactly as many services as steps.
    pub fn new(
        info: Arc<ModelInfo>,
        plan: EnsemblePlan,
        steps: Vec<Arc<dyn InferenceService>>,
        config: SchedulerConfig,
        metrics: ModelMetrics,
    ) -> Arc<Self> {
        assert_eq!(plan.steps().len(), steps.len(), "one service per step of ensemble '{}'", info.spec.name);
        Arc::new(Ensemble { info, plan, steps, config, metrics })
    }

    /// What can be told about the ensemble.
    pub fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    async fn serve(&self, request: InferRequest, arrived: Instant) -> Result<(InferResponse, Served)> {
        let spec = &*self.info.spec;
        decoupled::refuse_single(spec)?;
        let (request, expected) = prepare(spec, request)?;
        let (run, inputs) = self.begin(request, arrived);
        let mut progress = Progress::new(&self.plan, &run.demand, inputs);
        let ready = progress.first_steps();
        let (_, timing) = self.advance(&run, &mut progress, ready).await?;
        self.metrics.executed(expected.batch_size(), Some(&timing));
        let response =
            InferResponse { outputs: progress.into_outputs(|name| run.wants(name)), timing, ..Default::default() };
        let served = Served { batch_size: expected.batch_size(), queued: run.queued, compute: timing };
        Ok((self.finish(&expected, response)?, served))
    }

    fn begin(&self, request: InferRequest, arrived: Instant) -> (Run<'_>, Vec<NamedTensor>) {
        let deadline = self.config.deadline(&self.info.spec, &request, arrived.into_std());
        let InferRequest { id, inputs, outputs: wanted, parameters, trace, .. } = request;
        let demand = match wanted.is_empty() {
            true => Cow::Borrowed(&self.plan.everything),
            false => Cow::Owned(Demand::of(&self.plan, |name| wanted.iter().any(|wanted| &**wanted == name))),
        };
        let queued = arrived.elapsed();
        self.metrics.waited(queued);
        (Run { id, parameters, deadline, trace, wanted, demand, queued }, inputs)
    }

    fn finish(&self, expected: &Expectation, mut response: InferResponse) -> Result<InferResponse> {
        response.outputs = conform(&self.info.spec, expected, response.outputs)?;
        response.model = Some(self.info.clone());
        Ok(response)
    }

    /// Runs the steps that the wanted outputs need, each as soon as its inputs are there: to the end, or up to a decoupled
    /// step, which is returned. Dropping this stops what has not started.
    async fn advance(
        &self,
        run: &Run<'_>,
        progress: &mut Progress<'_>,
        mut ready: Vec<usize>,
    ) -> Result<(Option<usize>, ComputeTiming)> {
        let mut timing = ComputeTiming::default();
        let mut running = FuturesUnordered::new();
        let mut decoupled = None;
        loop {
            for step in ready {
                if self.plan.steps()[step].is_decoupled {
                    // All else that runs leads here, or the plan would be refused.
                    decoupled = Some(step);
                    continue;
                }
                let (request, service) = (self.request_of(step, run, progress), &self.steps[step]);
                running.push(async move { (step, service.infer(request).await) });
            }
            let Some((step, result)) = running.next().await else { break };
            let response = result.map_err(|error| self.in_step(step, error))?;
            timing.add(&response.timing);
            ready = progress.complete(step, response.outputs);
        }
        Ok((decoupled, timing))
    }

    fn request_of(&self, step: usize, run: &Run<'_>, progress: &mut Progress<'_>) -> InferRequest {
        let planned = &self.plan.steps()[step];
        InferRequest {
            model: ModelKey { target: None, model: Some(planned.model.clone()), version: planned.version },
            id: run.id.clone(),
            inputs: progress.take_inputs(step),
            outputs: run.demand.outputs[step].clone(),
            parameters: run.parameters.clone(),
            deadline: run.deadline,
            load_deadline: None,
            trace: run.trace.clone(),
        }
    }

    fn in_step(&self, step: usize, error: Error) -> Error {
        let model = &self.plan.steps()[step].model;
        error.context(format_args!("in ensemble '{}', step '{model}' ({step})", self.info.spec.name))
    }
}

impl InferenceService for Ensemble {
    fn infer(&self, mut request: InferRequest) -> BoxFuture<'_, Result<InferResponse>> {
        Box::pin(async move {
            let arrived = Instant::now();
            let span = spans::begin(&self.info, &mut request);
            let outcome = self.metrics.arrival(arrived);
            let served = self.serve(request, arrived).await;
            if let (Some(mut span), Err(error)) = (span, &served) {
                span.fail(error);
            }
            outcome.end(served)
        })
    }

    fn infer_stream(&self, request: InferRequest) -> BoxStream<'_, Result<InferResponse>> {
        match self.plan.is_decoupled() {
            true => self.stream(request),
            false => Box::pin(futures::stream::once(self.infer(request))),
        }
    }
}

//! Runs ensembles: every step starts the moment its inputs are there.

mod progress;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use inference::{
    BoxFuture, ComputeTiming, Error, InferRequest, InferResponse, InferenceService, ModelInfo, ModelKey, Parameters,
    Result, Trace,
};
use tokio::time::Instant;

use crate::answer::{conform, prepare};
use crate::config::SchedulerConfig;
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

/// What every step of one run gets from the ensemble's request.
struct Run {
    id: String,
    parameters: Parameters,
    deadline: Option<StdInstant>,
    trace: Option<Trace>,
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
        let deadline = self.config.deadline(spec, &request, arrived.into_std());
        let (request, expected) = prepare(spec, request)?;
        let queued = arrived.elapsed();
        self.metrics.waited(queued);
        let mut response = self.run(request, deadline).await?;
        self.metrics.executed(expected.batch_size(), Some(&response.timing));
        response.outputs = conform(spec, &expected, response.outputs)?;
        response.model = Some(self.info.clone());
        let served = Served { batch_size: expected.batch_size(), queued, compute: response.timing };
        Ok((response, served))
    }

    /// Runs the steps that the wanted outputs need, each as soon as its inputs are there. Dropping this stops what has not
    /// started.
    async fn run(&self, request: InferRequest, deadline: Option<StdInstant>) -> Result<InferResponse> {
        let InferRequest { id, inputs, outputs: wanted, parameters, trace, .. } = request;
        let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| &**wanted == name);
        let run = Run { id, parameters, deadline, trace };
        let demand = match wanted.is_empty() {
            true => Cow::Borrowed(&self.plan.everything),
            false => Cow::Owned(Demand::of(&self.plan, wants)),
        };
        let mut progress = Progress::new(&self.plan, &demand, inputs);
        let mut timing = ComputeTiming::default();
        let mut running = FuturesUnordered::new();
        let mut ready = progress.first_steps();
        loop {
            for step in ready {
                let (request, service) = (self.request_of(step, &run, &demand, &mut progress), &self.steps[step]);
                running.push(async move { (step, service.infer(request).await) });
            }
            let Some((step, result)) = running.next().await else { break };
            let response = result.map_err(|error| self.in_step(step, error))?;
            add(&mut timing, &response.timing);
            ready = progress.complete(step, response.outputs);
        }
        Ok(InferResponse { outputs: progress.into_outputs(wants), timing, ..InferResponse::default() })
    }

    fn request_of(&self, step: usize, run: &Run, demand: &Demand, progress: &mut Progress<'_>) -> InferRequest {
        let planned = &self.plan.steps()[step];
        InferRequest {
            model: ModelKey { target: None, model: Some(planned.model.clone()), version: planned.version },
            id: run.id.clone(),
            inputs: progress.take_inputs(step),
            outputs: demand.outputs[step].clone(),
            parameters: run.parameters.clone(),
            deadline: run.deadline,
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
}

fn add(sum: &mut ComputeTiming, more: &ComputeTiming) {
    let add = |sum: &mut Duration, more: Duration| *sum = sum.saturating_add(more);
    add(&mut sum.input, more.input);
    add(&mut sum.infer, more.infer);
    add(&mut sum.output, more.output);
}

//! A model whose runs go on until they are interrupted, where a request says so, and requests to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use inference::{
    Batch, CancelCause, DataType, Error, InferRequest, InferResponse, Interrupt, LoadedModel, ModelInstance, ModelSpec,
    NamedTensor, Result,
};
use parking_lot::{Condvar, Mutex};
use scheduler::{ScheduledModel, SchedulerConfig};

pub(crate) use crate::setup::{CONFIG, info, request, y};
use crate::setup::{input, numbers, output, scheduled};

/// A run whose batch holds this ends only when it is interrupted.
pub(crate) const ENDLESS: i32 = 1_000_000;
/// A run whose batch holds this next to others fails.
pub(crate) const BAD: i32 = -1;

/// One run of an instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) values: Vec<i32>,
    pub(crate) interrupted: bool,
    pub(crate) cause: Option<CancelCause>,
    pub(crate) over: bool,
}

impl Run {
    /// It runs, and nobody has told it to stop.
    pub(crate) fn goes_on(&self) -> bool {
        !self.over && !self.interrupted && self.values.contains(&ENDLESS)
    }
}

/// What all instances have done so far.
#[derive(Default)]
pub(crate) struct Stage {
    pub(crate) runs: Mutex<Vec<Run>>,
    changed: Condvar,
}

impl Stage {
    /// Waits, in real time, until `condition` holds for the runs so far.
    pub(crate) async fn until(&self, condition: impl Fn(&[Run]) -> bool) {
        let begin = Instant::now();
        while !condition(&self.runs.lock()) {
            assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", self.runs.lock());
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// Waits until so many runs have begun, and go on.
    pub(crate) async fn until_running(&self, count: usize) {
        self.until(|runs| runs.iter().filter(|run| run.goes_on()).count() == count).await;
    }
}

struct RunOf {
    stage: Arc<Stage>,
    index: usize,
    told: Arc<dyn Fn(&Run) + Send + Sync>,
}

impl Interrupt for RunOf {
    fn interrupt(&self) {
        let mut runs = self.stage.runs.lock();
        runs[self.index].interrupted = true;
        (self.told)(&runs[self.index]);
        self.stage.changed.notify_all();
    }
}

struct Fake {
    stage: Arc<Stage>,
    told: Arc<dyn Fn(&Run) + Send + Sync>,
}

impl ModelInstance for Fake {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        batch.requests.iter().map(|request| self.run(request, &batch)).collect()
    }
}

impl Fake {
    fn run(&self, request: &InferRequest, batch: &Batch) -> Result<InferResponse> {
        let values = numbers(request, "x");
        let fails = values.contains(&BAD) && values.len() > 1;
        let index = {
            let mut runs = self.stage.runs.lock();
            runs.push(Run { values: values.clone(), ..Run::default() });
            runs.len() - 1
        };
        let run: Arc<dyn Interrupt> = Arc::new(RunOf { stage: self.stage.clone(), index, told: self.told.clone() });
        let interrupting = batch.cancellation.interrupts(&run);
        let mut runs = self.stage.runs.lock();
        while !fails && runs[index].goes_on() {
            // A test that has failed must not hang.
            let waited = self.stage.changed.wait_for(&mut runs, Duration::from_secs(30));
            assert!(!waited.timed_out(), "nobody interrupted it");
        }
        drop(runs);
        // Never under the other lock: whoever interrupts holds this one's first.
        drop(interrupting);
        let mut runs = self.stage.runs.lock();
        runs[index].cause = batch.cancellation.cause();
        runs[index].over = true;
        if runs[index].interrupted {
            batch.cancellation.check("m")?;
        }
        if fails { Err(Error::internal("it broke").from_model()) } else { Ok(echo(request)) }
    }
}

/// `x` INT32 [1] in, `y` INT32 [1] out; batches up to 4.
pub(crate) fn spec() -> ModelSpec {
    let (inputs, outputs) = (vec![input("x", 1, false)], vec![output("y", DataType::Int32, 1)]);
    ModelSpec { max_batch_size: 4, inputs, outputs, ..ModelSpec::new("m", "fake") }
}

pub(crate) fn model(spec: ModelSpec, config: SchedulerConfig, count: usize) -> (Arc<ScheduledModel>, Arc<Stage>) {
    telling(spec, config, count, |_| {})
}

/// A model of `count` instances; `told` is told of each run that is interrupted, at that moment.
pub(crate) fn telling(
    spec: ModelSpec,
    config: SchedulerConfig,
    count: usize,
    told: impl Fn(&Run) + Send + Sync + 'static,
) -> (Arc<ScheduledModel>, Arc<Stage>) {
    let (loaded, stage) = loaded(count, told);
    (scheduled(spec, config, loaded), stage)
}

/// So many instances; `told` is as for [`telling`].
pub(crate) fn loaded(count: usize, told: impl Fn(&Run) + Send + Sync + 'static) -> (LoadedModel, Arc<Stage>) {
    let (stage, told) = (Arc::new(Stage::default()), Arc::new(told));
    let loaded = crate::setup::loaded(count, |_| Fake { stage: stage.clone(), told: told.clone() });
    (loaded, stage)
}

fn echo(request: &InferRequest) -> InferResponse {
    InferResponse::new(vec![NamedTensor::new("y", request.input("x").expect("checked").clone())])
}

/// What comes of `future` within seconds of real time: a paused clock stands still while a model runs.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    let (begin, mut future) = (Instant::now(), std::pin::pin!(future));
    loop {
        if let Some(result) = future.as_mut().now_or_never() {
            return result;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "it does not end");
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_micros(20));
    }
}

/// Begins to wait for `future`.
pub(crate) async fn begin<T>(future: &mut (impl Future<Output = T> + Unpin)) {
    assert!(future.now_or_never().is_none(), "it is not done yet");
}

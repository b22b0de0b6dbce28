//! A model whose runs go on until they are interrupted, where a request says so, and requests to it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use inference::{
    Batch, CancelCause, DataType, Device, Error, InferRequest, InferResponse, InputSpec, Interrupt, LoadedModel,
    MemoryUsage, ModelInfo, ModelInstance, ModelSpec, NamedTensor, OutputSpec, Result, Shape, Tensor,
};
use parking_lot::{Condvar, Mutex};
use scheduler::{Executor, ModelMetrics, ScheduledModel, SchedulerConfig};

pub(crate) const CONFIG: SchedulerConfig = SchedulerConfig {
    max_queue_size: 100,
    infer_timeout: Duration::from_secs(60),
    adaptive_batching: false,
    stream: scheduler::StreamConfig::DEFAULT,
};

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
        let values = values(request);
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
    let dims = || Shape::from([1]);
    let x = InputSpec { name: "x".into(), datatype: DataType::Int32, dims: dims(), reshape: None, optional: false };
    let y =
        OutputSpec { name: "y".into(), datatype: DataType::Int32, dims: dims(), reshape: None, label_filename: None };
    ModelSpec { max_batch_size: 4, inputs: vec![x], outputs: vec![y], ..ModelSpec::new("m", "fake") }
}

pub(crate) fn info(spec: ModelSpec) -> Arc<ModelInfo> {
    let (config, labels) = Default::default();
    Arc::new(ModelInfo { spec: Arc::new(spec), version: 1, versions: vec![1], config, labels })
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
    let executor = Executor::new(NonZeroUsize::new(4).expect("positive"));
    (ScheduledModel::new(info(spec), loaded, executor, config, ModelMetrics::new("m", 1)), stage)
}

/// So many instances; `told` is as for [`telling`].
pub(crate) fn loaded(count: usize, told: impl Fn(&Run) + Send + Sync + 'static) -> (LoadedModel, Arc<Stage>) {
    let (stage, told) = (Arc::new(Stage::default()), Arc::new(told));
    let instance = |_| Box::new(Fake { stage: stage.clone(), told: told.clone() }) as Box<dyn ModelInstance>;
    (LoadedModel { instances: (0..count).map(instance).collect(), memory: MemoryUsage::on(Device::Host, 1) }, stage)
}

pub(crate) fn request(rows: &[i32]) -> InferRequest {
    let x = Tensor::from_vec(Shape::from([rows.len() as i64, 1]), rows.to_vec()).expect("fits");
    InferRequest { inputs: vec![NamedTensor::new("x", x)], ..InferRequest::default() }
}

fn values(request: &InferRequest) -> Vec<i32> {
    request.input("x").expect("checked").to_elements::<i32>().expect("INT32").into_owned()
}

fn echo(request: &InferRequest) -> InferResponse {
    InferResponse::new(vec![NamedTensor::new("y", request.input("x").expect("checked").clone())])
}

pub(crate) fn y(response: &InferResponse) -> Vec<i32> {
    response.output("y").expect("returned").to_elements::<i32>().expect("INT32").into_owned()
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

//! Clients that stop reading: what their requests wait for goes to others, and is not kept for somebody asleep.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use inference::{
    Batch, DataType, Device, EnsembleSpec, InferRequest, InferResponse, InferenceService, InputSpec, LoadedModel,
    MemoryUsage, ModelInfo, ModelInstance, ModelSpec, NamedTensor, OutputSpec, ResponseSink, Result, Shape, StepSpec,
    Tensor,
};
use scheduler::{Ensemble, Executor, ModelMetrics, ScheduledModel, SchedulerConfig, StreamConfig, ensemble_plan};

const CONFIG: SchedulerConfig = SchedulerConfig {
    max_queue_size: 8,
    infer_timeout: Duration::from_secs(60),
    adaptive_batching: false,
    stream: StreamConfig { buffer_size: NonZeroUsize::new(4).expect("positive"), ..StreamConfig::DEFAULT },
};

/// How long something may take that must not wait for a client.
const SOON: Duration = Duration::from_secs(20);

fn response(value: i32) -> InferResponse {
    InferResponse::new(vec![NamedTensor::new("y", Tensor::from_vec(Shape::from([1]), vec![value]).expect("one"))])
}

fn y(response: &InferResponse) -> i32 {
    response.output("y").expect("an output").to_elements::<i32>().expect("INT32")[0]
}

fn x(request: &InferRequest) -> i32 {
    request.inputs[0].tensor.to_elements::<i32>().expect("INT32")[0]
}

fn request(input: &str, value: i32) -> InferRequest {
    let tensor = Tensor::from_vec(Shape::from([1]), vec![value]).expect("one");
    InferRequest { inputs: vec![NamedTensor::new(input, tensor)], ..InferRequest::default() }
}

/// Answers with its input, after a while.
struct Slow;

impl ModelInstance for Slow {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        std::thread::sleep(Duration::from_millis(5));
        batch.requests.iter().map(|request| Ok(response(x(request)))).collect()
    }
}

/// Answers with its input, when told to.
struct Gated(Mutex<mpsc::Receiver<()>>);

impl ModelInstance for Gated {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        self.0.get_mut().expect("not poisoned").recv().expect("opened");
        batch.requests.iter().map(|request| Ok(response(x(request)))).collect()
    }
}

/// Answers with its input, as often as it says.
struct Many(usize);

impl ModelInstance for Many {
    fn execute(&mut self, _: Batch) -> Vec<Result<InferResponse>> {
        unreachable!("it is asked for a stream")
    }

    fn stream(&mut self, request: InferRequest, mut responses: Box<dyn ResponseSink>) {
        let sent = (0..self.0).try_for_each(|_| responses.send(response(x(&request))));
        responses.end(sent);
    }
}

fn input(name: &str) -> InputSpec {
    InputSpec { name: name.into(), datatype: DataType::Int32, dims: Shape::from([1]), reshape: None, optional: false }
}

fn output(name: &str) -> OutputSpec {
    OutputSpec {
        name: name.into(),
        datatype: DataType::Int32,
        dims: Shape::from([1]),
        reshape: None,
        label_filename: None,
    }
}

fn info(spec: ModelSpec) -> Arc<ModelInfo> {
    let (config, labels) = Default::default();
    Arc::new(ModelInfo { spec: Arc::new(spec), version: 1, versions: vec![1], config, labels })
}

/// A model of one instance.
fn model(
    name: &str,
    executor: &Executor,
    decoupled: bool,
    instance: impl ModelInstance + 'static,
) -> Arc<ScheduledModel> {
    let (inputs, outputs) = (vec![input("x")], vec![output("y")]);
    let spec = ModelSpec { inputs, outputs, decoupled, ..ModelSpec::new(name, "fake") };
    let loaded = LoadedModel { instances: vec![Box::new(instance)], memory: MemoryUsage::on(Device::Host, 1) };
    ScheduledModel::new(info(spec), loaded, executor.clone(), CONFIG, ModelMetrics::new(name, 1))
}

/// An ensemble of these, one after the other: from `t0` to `y`.
fn chain(models: &[&Arc<ScheduledModel>]) -> Arc<Ensemble> {
    let tensor = |index: usize| if index == models.len() { "y".to_owned() } else { format!("t{index}") };
    let step = |(index, model): (usize, &&Arc<ScheduledModel>)| StepSpec {
        model: model.info().spec.name.clone(),
        version: None,
        inputs: [("x".into(), tensor(index).into())].into(),
        outputs: [("y".into(), tensor(index + 1).into())].into(),
    };
    let spec = ModelSpec {
        inputs: vec![input("t0")],
        outputs: vec![output("y")],
        ensemble: Some(EnsembleSpec::new(models.iter().enumerate().map(step).collect())),
        decoupled: true,
        ..ModelSpec::new("e", ModelSpec::ENSEMBLE)
    };
    let member = |name: &str| models.iter().map(|model| &*model.info().spec).find(|spec| &*spec.name == name);
    let plan = ensemble_plan::plan(&spec, |name, _| member(name)).expect("right");
    let services = models.iter().map(|model| Arc::clone(model) as Arc<dyn InferenceService>).collect();
    Ensemble::new(info(spec), plan, services, CONFIG, ModelMetrics::new("e", 1))
}

fn executor(concurrency: usize) -> Executor {
    Executor::new(NonZeroUsize::new(concurrency).expect("positive"))
}

async fn answers_soon(model: &Arc<ScheduledModel>) {
    for value in 0..3 {
        let answer = tokio::time::timeout(SOON, model.infer(request("x", value))).await;
        assert_eq!(y(&answer.expect("it does not wait for a client").expect("fine")), value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_not_kept_for_a_request_that_nobody_polls() {
    let (open, gate) = mpsc::channel();
    let model = model("m", &executor(8), false, Gated(Mutex::new(gate)));
    let mut first = model.infer(request("x", 1));
    let mut asleep = model.infer(request("x", 2));
    assert!((&mut first).now_or_never().is_none() && (&mut asleep).now_or_never().is_none());
    let mut behind = model.infer(request("x", 3));
    assert!((&mut behind).now_or_never().is_none());
    for _ in 0..3 {
        open.send(()).expect("held");
    }
    assert_eq!(y(&first.await.expect("fine")), 1);
    let behind = tokio::time::timeout(SOON, behind).await;
    assert_eq!(y(&behind.expect("the turn of the one before was taken").expect("fine")), 3);
    assert_eq!(y(&asleep.await.expect("fine")), 2);
}

/// So are turns of decoupled models: what is asleep begins to run.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_polls_takes_its_turn() {
    let model = model("m", &executor(1), true, Many(3));
    let streams: Vec<_> = (0..4).map(|value| model.infer_stream(request("x", value))).collect();
    let mut asleep: Vec<_> = streams.into_iter().map(StreamExt::peekable).collect();
    for stream in &mut asleep {
        // Begins, or waits for those before it.
        let _ = std::pin::Pin::new(stream).peek().now_or_never();
    }
    let awake = model.infer_stream(request("x", 9)).map(|item| y(&item.expect("fine"))).collect::<Vec<_>>();
    assert_eq!(tokio::time::timeout(SOON, awake).await.expect("it does not wait for a client"), [9; 3]);
    for (stream, value) in asleep.into_iter().zip(0..) {
        assert_eq!(stream.map(|item| y(&item.expect("fine"))).collect::<Vec<_>>().await, [value; 3]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_below_a_decoupled_step_keep_no_instance_from_others() {
    let executor = executor(4);
    let many = model("many", &executor, true, Many(50));
    let step = model("step", &executor, false, Slow);
    let ensemble = chain(&[&many, &step]);
    let mut stream = ensemble.infer_stream(request("t0", 7));
    assert_eq!(y(&stream.next().await.expect("one").expect("fine")), 7);
    answers_soon(&step).await;
    assert_eq!(stream.filter(|item| std::future::ready(item.is_ok())).count().await, 49);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_below_a_decoupled_step_keep_no_place_in_the_process_from_others() {
    let executor = executor(1);
    let first = model("first", &executor, true, Many(50));
    let step = model("step", &executor, false, Slow);
    let second = model("second", &executor, true, Many(3));
    let ensemble = chain(&[&first, &step, &second]);
    let mut stream = ensemble.infer_stream(request("t0", 7));
    assert_eq!(y(&stream.next().await.expect("one").expect("fine")), 7);
    let other = model("other", &executor, false, Slow);
    answers_soon(&other).await;
    assert_eq!(stream.filter(|item| std::future::ready(item.is_ok())).count().await, 149);
}

//! One model's scheduler: queue, bounds, deadlines, panics, and what becomes of answers.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use futures::FutureExt;
use inference::{
    Batch, DataType, Device, ErrorKind, InferRequest, InferResponse, InferenceService, InputSpec, LoadedModel,
    MemoryUsage, ModelInfo, ModelInstance, ModelSpec, NamedTensor, Origin, OutputSpec, Result, Shape, Tensor,
};
use scheduler::{Executor, ModelMetrics, ScheduledModel, SchedulerConfig};

/// An instance that does what a closure says.
struct Fake<F>(F);

impl<F: FnMut(&InferRequest) -> InferResponse + Send> ModelInstance for Fake<F> {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        batch.requests.iter().map(|request| Ok(self.0(request))).collect()
    }
}

/// `x` FP32 [2] and an optional `o` in, `y` FP32 [2] out; batches up to 4.
fn spec() -> ModelSpec {
    let input = |name: &str, optional| InputSpec {
        name: name.into(),
        datatype: DataType::Fp32,
        dims: Shape::from([2]),
        reshape: None,
        optional,
    };
    let output = |name: &str| OutputSpec {
        name: name.into(),
        datatype: DataType::Fp32,
        dims: Shape::from([2]),
        reshape: None,
        label_filename: None,
    };
    ModelSpec {
        max_batch_size: 4,
        inputs: vec![input("x", false), input("o", true)],
        outputs: vec![output("y"), output("z")],
        ..ModelSpec::new("m", "fake")
    }
}

const CONFIG: SchedulerConfig = SchedulerConfig {
    max_queue_size: 1,
    infer_timeout: Duration::from_secs(5),
    adaptive_batching: false,
    stream: scheduler::StreamConfig::DEFAULT,
};

fn model<F>(spec: ModelSpec, count: usize, concurrency: usize, run: impl Fn() -> F) -> Arc<ScheduledModel>
where
    F: FnMut(&InferRequest) -> InferResponse + Send + 'static,
{
    model_with(CONFIG, spec, count, executor(concurrency), run)
}

fn executor(concurrency: usize) -> Executor {
    Executor::new(NonZeroUsize::new(concurrency).expect("positive"))
}

fn model_with<F>(
    config: SchedulerConfig,
    spec: ModelSpec,
    count: usize,
    executor: Executor,
    run: impl Fn() -> F,
) -> Arc<ScheduledModel>
where
    F: FnMut(&InferRequest) -> InferResponse + Send + 'static,
{
    let instances = (0..count).map(|_| Box::new(Fake(run())) as Box<dyn ModelInstance>).collect();
    let loaded = LoadedModel { instances, memory: MemoryUsage::on(Device::Host, 1) };
    let info = ModelInfo {
        spec: Arc::new(spec),
        version: 1,
        versions: vec![1],
        config: Default::default(),
        labels: Default::default(),
    };
    ScheduledModel::new(Arc::new(info), loaded, executor, config, ModelMetrics::new("m", 1))
}

fn floats(name: &str, dims: &[i64]) -> NamedTensor {
    let shape = Shape::new(dims);
    let count = shape.element_count().expect("small");
    NamedTensor::new(name, Tensor::from_vec(shape, vec![1f32; count]).expect("fits"))
}

fn request() -> InferRequest {
    InferRequest { inputs: vec![floats("x", &[1, 2])], ..InferRequest::default() }
}

/// Answers `y` and `z` with the request's `x`.
fn echo(request: &InferRequest) -> InferResponse {
    let x = request.input("x").expect("checked").clone();
    InferResponse::new(vec![NamedTensor::new("z", x.clone()), NamedTensor::new("y", x)])
}

/// A model that waits for a message before each answer.
fn gated(count: usize) -> (Arc<ScheduledModel>, mpsc::Sender<()>) {
    gated_on(count, executor(8))
}

/// Panics on the request `bad`.
fn gated_on(count: usize, executor: Executor) -> (Arc<ScheduledModel>, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let run = || {
        let gate = gate.clone();
        move |request: &InferRequest| {
            let opened = gate.lock().map(|gate| gate.recv());
            assert!(request.id != "bad", "cannot digest it");
            opened.expect("not poisoned").expect("opened");
            echo(request)
        }
    };
    (model_with(CONFIG, spec(), count, executor, run), open)
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_a_cancelled_request_leaves_it() {
    let (model, open) = gated(1);
    let mut running = model.infer(request());
    assert!((&mut running).now_or_never().is_none());
    let mut waiting = model.infer(request());
    assert!((&mut waiting).now_or_never().is_none());

    let error = model.infer(request()).await.expect_err("one runs, one waits");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.message().starts_with("Exceeds maximum queue size: 1 requests wait for model 'm'"), "{error}");

    drop(waiting);
    let mut waiting = model.infer(request());
    assert!((&mut waiting).now_or_never().is_none(), "the cancelled one left its place");
    open.send(()).expect("held");
    open.send(()).expect("held");
    running.await.expect("runs");
    waiting.await.expect("runs");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_time_runs_out_in_the_queue_takes_no_instance() {
    let (model, open) = gated(1);
    let mut running = model.infer(request());
    assert!((&mut running).now_or_never().is_none());
    let mut waiting = model.infer(request());
    assert!((&mut waiting).now_or_never().is_none());
    tokio::time::advance(Duration::from_secs(4)).await;
    assert!((&mut waiting).now_or_never().is_none());
    tokio::time::advance(Duration::from_secs(2)).await;
    let error = waiting.await.expect_err("5 seconds are over");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "as Triton answers it");
    assert!(error.message().contains("Request timeout expired"), "{error}");

    let error = running.await.expect_err("its time is over as well, though it goes on running");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    open.send(()).expect("held");
    let past = InferRequest { deadline: Some(std::time::Instant::now()), ..request() };
    assert_eq!(model.infer(past).await.expect_err("too late").kind(), ErrorKind::Unavailable);
    open.send(()).expect("held");
    model.infer(request()).await.expect("the instance is free");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_while_its_request_runs_does_not_lose_the_instance() {
    let (model, open) = gated(1);
    let mut running = model.infer(request());
    assert!((&mut running).now_or_never().is_none());
    drop(running);
    let mut waiting = model.infer(request());
    assert!((&mut waiting).now_or_never().is_none(), "the instance is still at work");
    open.send(()).expect("held");
    open.send(()).expect("held");
    waiting.await.expect("runs");
}

#[tokio::test]
async fn instances_that_panic_are_not_used_again() {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = runs.clone();
    let model = model(spec(), 2, 8, move || {
        let runs = count.clone();
        move |request: &InferRequest| {
            runs.fetch_add(1, Ordering::Relaxed);
            assert!(request.id != "bad", "cannot digest {}", request.id);
            echo(request)
        }
    });
    let bad = || InferRequest { id: "bad".to_owned(), ..request() };
    let error = model.infer(bad()).await.expect_err("panics");
    assert_eq!((error.kind(), error.origin(), error.model()), (ErrorKind::Internal, Origin::Model, Some("m")));
    assert!(error.message().contains("model 'm' panicked: cannot digest bad"), "{error}");
    model.infer(request()).await.expect("one instance is left");
    model.infer(bad()).await.expect_err("panics");
    assert!(!model.is_usable());
    let error = model.infer(request()).await.expect_err("no instance is left");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("panicked (the last one with: cannot digest bad)"), "{error}");
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn those_who_wait_for_an_instance_that_panics_are_told() {
    let (model, open) = gated(1);
    let mut bad = model.infer(InferRequest { id: "bad".to_owned(), ..request() });
    assert!((&mut bad).now_or_never().is_none());
    let mut waiting = model.infer(request());
    assert!((&mut waiting).now_or_never().is_none());
    open.send(()).expect("held");
    assert_eq!(bad.await.expect_err("panics").kind(), ErrorKind::Internal);
    assert_eq!(waiting.await.expect_err("nothing is left").kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn models_share_the_executor_and_waiting_for_it_gives_up_in_time() {
    let executor = executor(1);
    let (first, open) = gated_on(1, executor.clone());
    let second = model_with(CONFIG, spec(), 1, executor, || echo);
    let mut running = first.infer(request());
    assert!((&mut running).now_or_never().is_none());
    let mut waiting = second.infer(request());
    assert!((&mut waiting).now_or_never().is_none(), "the only place is taken");
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(waiting.await.expect_err("too late").kind(), ErrorKind::Unavailable);
    assert_eq!(running.await.expect_err("it hangs").kind(), ErrorKind::DeadlineExceeded);
    second.infer(request()).await.expect("what hangs has given its place back");
    drop(open);
}

/// Each execution waits for a second one, so that this hangs unless two run at once; a third one would show.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn as_many_run_at_once_as_the_executor_allows() {
    let (together, now, most) =
        (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let shared = (together, now, most.clone());
    let config = SchedulerConfig { max_queue_size: 100, ..CONFIG };
    let model = model_with(config, spec(), 4, executor(2), move || {
        let (together, now, most) = shared.clone();
        move |request: &InferRequest| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            together.wait();
            now.fetch_sub(1, Ordering::SeqCst);
            echo(request)
        }
    });
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let model = model.clone();
            tokio::spawn(async move { model.infer(request()).await })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic").expect("runs");
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn answers_are_held_against_the_specification() {
    type Case = (Vec<NamedTensor>, Result<&'static [&'static str], &'static str>);
    let halves = || Tensor::from_vec(Shape::from([1, 2]), vec![half::f16::ONE; 2]).expect("fits");
    let cases: [Case; 7] = [
        (vec![floats("z", &[1, 2]), floats("y", &[1, 2])], Ok(&["y", "z"])),
        (vec![floats("y", &[1, 2]), floats("z", &[2, 2])], Err("output 'z' with 2 rows for a batch of 1")),
        (
            vec![floats("y", &[1, 2]), floats("z", &[1, 3])],
            Err("output 'z' with shape [1,3], its configuration says [-1,2]"),
        ),
        (
            vec![floats("y", &[1, 2]), NamedTensor::new("z", halves())],
            Err("output 'z' as FP16, its configuration says FP32"),
        ),
        (vec![floats("y", &[1, 2])], Err("did not return its output 'z'")),
        (
            vec![floats("y", &[1, 2]), floats("z", &[1, 2]), floats("q", &[1])],
            Err("output 'q' that it does not declare"),
        ),
        (vec![], Err("did not return its output 'y'")),
    ];
    for (outputs, expected) in cases {
        let model = model(spec(), 1, 1, || {
            let outputs = outputs.clone();
            move |_: &InferRequest| InferResponse::new(outputs.clone())
        });
        let complete =
            InferRequest { inputs: vec![floats("x", &[1, 2]), floats("o", &[1, 2])], ..InferRequest::default() };
        match (model.infer(complete).await, expected) {
            (Ok(response), Ok(names)) => {
                let got: Vec<&str> = response.outputs.iter().map(|output| &*output.name).collect();
                assert_eq!(got, names);
                assert_eq!(response.model.expect("set").spec.name.as_ref(), "m");
            }
            (Err(error), Err(part)) => {
                assert!(error.message().contains(part), "{error}");
                assert_eq!((error.kind(), error.origin()), (ErrorKind::Internal, Origin::Model));
            }
            (got, expected) => panic!("{got:?}, expected {expected:?}"),
        }
    }
}

#[tokio::test]
async fn only_wanted_outputs_are_returned() {
    let model = model(spec(), 1, 1, || echo);
    let response = model.infer(InferRequest { outputs: vec!["z".into()], ..request() }).await.expect("runs");
    assert_eq!(response.outputs.len(), 1);
    assert!(response.output("z").is_some());
    assert!(response.timing.infer > Duration::ZERO, "a backend that does not time itself is timed");
    let error = model.infer(InferRequest { outputs: vec!["q".into()], ..request() }).await.expect_err("unknown");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn reshape_is_applied_and_undone_without_a_copy() {
    let mut spec = spec();
    spec.outputs.truncate(1);
    spec.inputs[0].reshape = Some(Shape::from([2, 1]));
    spec.outputs[0].reshape = Some(Shape::from([2, 1]));
    let model = model(spec, 1, 1, || {
        |request: &InferRequest| {
            let x = request.input("x").expect("checked").clone();
            assert_eq!(x.shape(), &Shape::from([3, 2, 1]));
            InferResponse::new(vec![NamedTensor::new("y", x)])
        }
    });
    let x = floats("x", &[3, 2]);
    let address = x.tensor.data().as_ptr();
    let response = model.infer(InferRequest { inputs: vec![x], ..InferRequest::default() }).await.expect("runs");
    let y = response.output("y").expect("returned");
    assert_eq!(y.shape(), &Shape::from([3, 2]));
    assert_eq!(y.data().as_ptr(), address);
}

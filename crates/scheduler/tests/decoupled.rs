//! Decoupled models: responses as they come, slow clients, clients that go away, models that fail or hang.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use futures::StreamExt;
use inference::{
    Batch, DataType, Device, Error, ErrorKind, InferRequest, InferResponse, InferenceService, InputSpec, LoadedModel,
    MemoryUsage, ModelInfo, ModelInstance, ModelSpec, NamedTensor, Origin, OutputSpec, ResponseSink, Result, Shape,
    Tensor,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use scheduler::{Executor, ModelMetrics, ScheduledModel, SchedulerConfig, StreamConfig};

const BUFFER: usize = 4;
const CONFIG: SchedulerConfig = SchedulerConfig {
    max_queue_size: 8,
    infer_timeout: Duration::from_secs(20),
    adaptive_batching: false,
    stream: StreamConfig {
        buffer_size: NonZeroUsize::new(BUFFER).expect("positive"),
        stall_timeout: Duration::from_secs(20),
    },
};

/// An instance that does what a closure says.
struct Fake<F>(F);

impl<F: FnMut(InferRequest, Box<dyn ResponseSink>) + Send> ModelInstance for Fake<F> {
    fn execute(&mut self, _: Batch) -> Vec<Result<InferResponse>> {
        unreachable!("a decoupled model is asked for a stream")
    }

    fn stream(&mut self, request: InferRequest, responses: Box<dyn ResponseSink>) {
        (self.0)(request, responses);
    }
}

/// `x` INT32 [1] in, `y` INT32 [1] out.
fn spec() -> ModelSpec {
    let dims = || Shape::from([1]);
    let datatype = DataType::Int32;
    let input = InputSpec { name: "x".into(), datatype, dims: dims(), reshape: None, optional: false };
    let output = OutputSpec { name: "y".into(), datatype, dims: dims(), reshape: None, label_filename: None };
    ModelSpec { inputs: vec![input], outputs: vec![output], decoupled: true, ..ModelSpec::new("m", "fake") }
}

fn executor(concurrency: usize) -> Executor {
    Executor::new(NonZeroUsize::new(concurrency).expect("positive"))
}

fn model_with(
    config: SchedulerConfig,
    executor: Executor,
    run: impl FnMut(InferRequest, Box<dyn ResponseSink>) + Send + 'static,
) -> Arc<ScheduledModel> {
    of_instance(config, executor, spec(), Fake(run))
}

fn of_instance(
    config: SchedulerConfig,
    executor: Executor,
    spec: ModelSpec,
    instance: impl ModelInstance + 'static,
) -> Arc<ScheduledModel> {
    let loaded = LoadedModel { instances: vec![Box::new(instance)], memory: MemoryUsage::on(Device::Host, 1) };
    let (config_bytes, labels) = Default::default();
    let info = ModelInfo { spec: Arc::new(spec), version: 1, versions: vec![1], config: config_bytes, labels };
    ScheduledModel::new(Arc::new(info), loaded, executor, config, ModelMetrics::new("m", 1))
}

fn model(run: impl FnMut(InferRequest, Box<dyn ResponseSink>) + Send + 'static) -> Arc<ScheduledModel> {
    model_with(CONFIG, executor(4), run)
}

fn number(value: i32) -> Tensor {
    Tensor::from_vec(Shape::from([1]), vec![value]).expect("one element")
}

fn request(value: i32) -> InferRequest {
    InferRequest { inputs: vec![NamedTensor::new("x", number(value))], ..InferRequest::default() }
}

fn response(value: i32) -> InferResponse {
    InferResponse::new(vec![NamedTensor::new("y", number(value))])
}

fn x(request: &InferRequest) -> i32 {
    request.input("x").expect("checked").to_elements::<i32>().expect("INT32")[0]
}

fn y(response: &InferResponse) -> i32 {
    response.output("y").expect("an output").to_elements::<i32>().expect("INT32")[0]
}

/// Sends 0 .. x.
fn count(request: InferRequest, mut responses: Box<dyn ResponseSink>) {
    let result = (0..x(&request)).try_for_each(|value| responses.send(response(value)));
    responses.end(result);
}

/// All responses, and the error at the end.
async fn collect(model: &ScheduledModel, request: InferRequest) -> (Vec<i32>, Option<Error>) {
    let (mut values, mut error) = (Vec::new(), None);
    let mut stream = model.infer_stream(request);
    while let Some(item) = stream.next().await {
        assert!(error.is_none(), "nothing comes after an error");
        match item {
            Ok(response) => values.push(y(&response)),
            Err(failed) => error = Some(failed),
        }
    }
    (values, error)
}

/// Waits for something that other threads do.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_as_many_responses_as_the_model_gives() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let model = metrics::with_local_recorder(&recorder, || model(count));
    for wanted in [0, 1, 3, 100] {
        let (values, error) = collect(&model, request(wanted)).await;
        assert_eq!(values, (0..wanted).collect::<Vec<_>>());
        assert!(error.is_none(), "{error:?}");
    }
    let scrape = recorder.handle().render();
    for line in [
        "nv_inference_request_success{model=\"m\",version=\"1\"} 4",
        "nv_inference_exec_count{model=\"m\",version=\"1\"} 4",
        "nv_inference_count{model=\"m\",version=\"1\"} 4",
    ] {
        assert!(scrape.contains(line), "{line}\n{scrape}");
    }
    let error = model.infer(request(1)).await.expect_err("one response is not promised");
    assert_eq!((error.kind(), error.model()), (ErrorKind::Unsupported, Some("m")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_makes_the_model_wait() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    // The only permit of the process: it must not be kept while the model waits.
    let executor = executor(1);
    let slow = model_with(CONFIG, executor.clone(), move |request, mut responses| {
        let result = (0..x(&request)).try_for_each(|value| {
            responses.send(response(value))?;
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        responses.end(result);
    });
    let mut stream = slow.infer_stream(request(1000));
    assert_eq!(y(&stream.next().await.expect("one").expect("fine")), 0);
    until("the buffer fills", || sent.load(Ordering::SeqCst) > BUFFER).await;
    let other = model_with(CONFIG, executor, count);
    assert_eq!(collect(&other, request(3)).await.0, [0, 1, 2]);
    assert_eq!(sent.load(Ordering::SeqCst), BUFFER + 1, "no more than the buffer holds, and what was read");
    let rest: Vec<i32> = stream.map(|item| y(&item.expect("fine"))).collect().await;
    assert_eq!(rest, (1..1000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_too_slow_loses_the_model() {
    let stream = StreamConfig { stall_timeout: Duration::from_millis(50), ..CONFIG.stream };
    let model = model_with(SchedulerConfig { stream, ..CONFIG }, executor(4), count);
    let mut slow = model.infer_stream(request(1000));
    assert_eq!(y(&slow.next().await.expect("one").expect("fine")), 0);
    // The instance is free again, although nobody has read.
    assert_eq!(collect(&model, request(2)).await.0, [0, 1]);
    let mut values = Vec::new();
    let error = loop {
        match slow.next().await.expect("an end") {
            Ok(response) => values.push(y(&response)),
            Err(error) => break error,
        }
    };
    assert_eq!(values, [1, 2, 3, 4], "what was made is not lost");
    assert_eq!((error.kind(), error.origin()), (ErrorKind::DeadlineExceeded, Origin::Server));
    assert!(error.message().contains("--stream-stall-timeout"), "{error}");
    assert!(slow.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_learns_that_its_client_is_gone() {
    let (tell, told) = mpsc::channel();
    let recorder = PrometheusBuilder::new().build_recorder();
    let run = move |_, mut responses: Box<dyn ResponseSink>| {
        assert!(responses.is_open());
        responses.send(response(1)).expect("somebody waits");
        let error = responses.pause(Duration::from_secs(3600)).expect_err("nobody waits");
        assert!(!responses.is_open());
        assert_eq!(responses.send(response(2)).expect_err("nobody waits").kind(), ErrorKind::Cancelled);
        tell.send(error.kind()).expect("the test waits");
        responses.end(Ok(()));
    };
    let model = metrics::with_local_recorder(&recorder, || model(run));
    let mut stream = model.infer_stream(request(0));
    assert_eq!(y(&stream.next().await.expect("one").expect("fine")), 1);
    drop(stream);
    let kind = tokio::task::spawn_blocking(move || told.recv_timeout(Duration::from_secs(20))).await.expect("no panic");
    assert_eq!(kind.expect("told"), ErrorKind::Cancelled);
    let line = "nv_inference_request_failure{model=\"m\",reason=\"CANCELED\",version=\"1\"} 1";
    let scrape = recorder.handle().render();
    assert!(scrape.contains(line), "{scrape}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_the_request_and_the_instance() {
    let model = model(|_, mut responses| {
        responses.send(response(7)).expect("somebody waits");
        panic!("out of tokens");
    });
    let (values, error) = collect(&model, request(0)).await;
    let error = error.expect("it panicked");
    assert_eq!((values, error.kind(), error.origin()), (vec![7], ErrorKind::Internal, Origin::Model));
    assert!(error.message().contains("out of tokens"), "{error}");
    assert!(!model.is_usable());
    let (_, error) = collect(&model, request(0)).await;
    assert_eq!(error.expect("nothing is left").kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_says_is_checked() {
    let silent = model(|_, responses| drop(responses));
    let error = collect(&silent, request(0)).await.1.expect("it did not say how it ended");
    assert_eq!((error.kind(), error.origin()), (ErrorKind::Internal, Origin::Model));
    assert!(error.message().contains("without saying"), "{error}");

    let wrong = model(|_, mut responses| {
        let tensor = Tensor::from_vec(Shape::from([2]), vec![1, 2]).expect("two");
        let sent = responses.send(InferResponse::new(vec![NamedTensor::new("y", tensor)]));
        responses.end(sent);
    });
    let error = collect(&wrong, request(0)).await.1.expect("the shape is wrong");
    assert!(error.message().contains("returned output 'y' with shape [2]"), "{error}");

    let failing = model(|_, responses| responses.end(Err(Error::internal("no luck").from_model())));
    let error = collect(&failing, request(0)).await.1.expect("it failed");
    assert_eq!((error.message(), error.model()), ("no luck", Some("m")));
    let error = collect(&failing, InferRequest::default()).await.1.expect("an input is missing");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requests_time_ends_it_whether_its_model_listens_or_hangs() {
    let executor = executor(1);
    let listening = model_with(CONFIG, executor.clone(), |_, mut responses| {
        let result = responses.pause(Duration::from_secs(3600));
        responses.end(result);
    });
    let deadline = Instant::now().checked_add(Duration::from_millis(50));
    let error = collect(&listening, InferRequest { deadline, ..request(0) }).await.1.expect("its time is over");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);

    let (release, released) = mpsc::channel::<()>();
    let config = SchedulerConfig { infer_timeout: Duration::from_millis(50), ..CONFIG };
    let hanging = model_with(config, executor.clone(), move |_, mut responses| {
        responses.send(response(1)).expect("somebody waits");
        let _ = released.recv();
        responses.end(Ok(()));
    });
    let (values, error) = collect(&hanging, request(0)).await;
    let error = error.expect("the next response takes too long");
    assert_eq!((values, error.kind(), error.origin()), (vec![1], ErrorKind::DeadlineExceeded, Origin::Model));
    // What hangs takes no turn of others.
    let other = model_with(CONFIG, executor, count);
    assert_eq!(collect(&other, request(1)).await.0, [0]);
    drop(release);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_answers_once_may_be_decoupled() {
    struct Once;
    impl ModelInstance for Once {
        fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
            batch.requests.iter().map(|request| Ok(response(x(request)))).collect()
        }
    }
    let batching = ModelSpec { dynamic_batching: Some(Default::default()), ..spec() };
    for spec in [spec(), batching] {
        let model = of_instance(CONFIG, executor(1), spec, Once);
        let responses: Vec<_> = model.infer_stream(request(5)).collect().await;
        let [Ok(only)] = responses.as_slice() else { panic!("{responses:?}") };
        assert_eq!((y(only), only.is_final), (5, true));
        assert_eq!(only.model.as_ref().expect("named").version, 1);
    }
}

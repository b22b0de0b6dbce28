//! The statistics of a model and of an ensemble over it, as a scrape shows them, and branches on a real runtime.

use std::num::NonZeroUsize;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures::FutureExt;
use inference::{
    Batch, DataType, Device, DynamicBatching, EnsembleSpec, Error, InferRequest, InferResponse, InferenceService,
    InputSpec, LoadedModel, MemoryUsage, ModelInfo, ModelInstance, ModelSpec, NamedTensor, OutputSpec, Result, Shape,
    StepSpec, Tensor,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use scheduler::{Ensemble, Executor, ModelMetrics, ScheduledModel, SchedulerConfig, describe_metrics, ensemble_plan};

const CONFIG: SchedulerConfig = SchedulerConfig {
    max_queue_size: 8,
    infer_timeout: Duration::from_secs(60),
    adaptive_batching: false,
    stream: scheduler::StreamConfig::DEFAULT,
};

/// Every family and label set of one model: those of Triton 24.10 as it scrapes them, and ours.
const SERIES: [&str; 14] = [
    "nv_inference_request_success{model=\"m\",version=\"1\"}",
    "nv_inference_request_failure{model=\"m\",reason=\"OTHER\",version=\"1\"}",
    "nv_inference_request_failure{model=\"m\",reason=\"BACKEND\",version=\"1\"}",
    "nv_inference_request_failure{model=\"m\",reason=\"CANCELED\",version=\"1\"}",
    "nv_inference_request_failure{model=\"m\",reason=\"REJECTED\",version=\"1\"}",
    "nv_inference_count{model=\"m\",version=\"1\"}",
    "nv_inference_exec_count{model=\"m\",version=\"1\"}",
    "nv_inference_request_duration_us{model=\"m\",version=\"1\"}",
    "nv_inference_queue_duration_us{model=\"m\",version=\"1\"}",
    "nv_inference_compute_input_duration_us{model=\"m\",version=\"1\"}",
    "nv_inference_compute_infer_duration_us{model=\"m\",version=\"1\"}",
    "nv_inference_compute_output_duration_us{model=\"m\",version=\"1\"}",
    "nv_inference_pending_request_count{model=\"m\",version=\"1\"}",
    "panoply_failed_batches_total{model=\"m\",version=\"1\"}",
];

/// Echoes `x` as `y`, meets its partners at a barrier before, and fails on the request `bad`.
struct Echo(Arc<Barrier>);

impl ModelInstance for Echo {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        self.0.wait();
        let answer = |request: &InferRequest| {
            if request.id == "bad" {
                return Err(Error::internal("it broke").from_model());
            }
            let x = request.input("x").expect("checked").clone();
            let mut response = InferResponse::new(vec![NamedTensor::new("y", x)]);
            let milliseconds = Duration::from_millis;
            response.timing.input = milliseconds(1);
            response.timing.infer = milliseconds(2);
            response.timing.output = milliseconds(3);
            Ok(response)
        };
        batch.requests.iter().map(answer).collect()
    }
}

fn spec(name: &str, inputs: &[&str], outputs: &[&str]) -> ModelSpec {
    let (datatype, dims) = (DataType::Uint8, Shape::from([2]));
    let input =
        |name: &&str| InputSpec { name: (*name).into(), datatype, dims: dims.clone(), reshape: None, optional: false };
    let output = |name: &&str| OutputSpec {
        name: (*name).into(),
        datatype,
        dims: dims.clone(),
        reshape: None,
        label_filename: None,
    };
    ModelSpec {
        max_batch_size: 4,
        inputs: inputs.iter().map(input).collect(),
        outputs: outputs.iter().map(output).collect(),
        ..ModelSpec::new(name, "fake")
    }
}

fn info(spec: ModelSpec) -> Arc<ModelInfo> {
    let (config, labels) = Default::default();
    Arc::new(ModelInfo { spec: Arc::new(spec), version: 1, versions: vec![1], config, labels })
}

fn model(name: &str, recorder: &PrometheusRecorder, barrier: &Arc<Barrier>) -> Arc<ScheduledModel> {
    model_of(spec(name, &["x"], &["y"]), recorder, barrier)
}

fn model_of(spec: ModelSpec, recorder: &PrometheusRecorder, barrier: &Arc<Barrier>) -> Arc<ScheduledModel> {
    let instances: Vec<Box<dyn ModelInstance>> = vec![Box::new(Echo(barrier.clone()))];
    let loaded = LoadedModel { instances, memory: MemoryUsage::on(Device::Host, 1) };
    let metrics = metrics::with_local_recorder(recorder, || ModelMetrics::new(&spec.name, 1));
    let executor = Executor::new(NonZeroUsize::new(4).expect("positive"));
    ScheduledModel::new(info(spec), loaded, executor, CONFIG, metrics)
}

fn request(id: &str, name: &str, rows: i64) -> InferRequest {
    let bytes = vec![0u8; usize::try_from(rows).expect("positive") * 2];
    let x = Tensor::from_vec(Shape::from([rows, 2]), bytes).expect("fits");
    InferRequest { id: id.to_owned(), inputs: vec![NamedTensor::new(name, x)], ..InferRequest::default() }
}

fn figure(recorder: &PrometheusRecorder, series: &str) -> f64 {
    let scrape = recorder.handle().render();
    let line = scrape.lines().find(|line| line.starts_with(series));
    line.unwrap_or_else(|| panic!("no {series} in\n{scrape}"))
        .rsplit(' ')
        .next()
        .and_then(|v| v.parse().ok())
        .expect("a figure")
}

#[tokio::test]
async fn a_models_series_are_tritons_and_count_what_happened() {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, describe_metrics);
    let model = model("m", &recorder, &Arc::new(Barrier::new(1)));
    for series in SERIES {
        assert_eq!(figure(&recorder, series), 0.0, "{series}");
    }
    model.infer(request("", "x", 3)).await.expect("runs");
    model.infer(request("", "x", 1)).await.expect("runs");
    model.infer(request("bad", "x", 1)).await.expect_err("breaks");
    model.infer(request("", "q", 1)).await.expect_err("no such input");
    let past = InferRequest { deadline: Some(std::time::Instant::now()), ..request("", "x", 1) };
    model.infer(past).await.expect_err("too late");
    let unpolled = model.infer(request("", "x", 1));
    drop(unpolled);
    let expected = [2.0, 1.0, 1.0, 0.0, 1.0, 4.0, 3.0];
    for (series, expected) in SERIES.iter().zip(expected) {
        assert_eq!(figure(&recorder, series), expected, "{series}");
    }
    for (series, expected) in SERIES[9..12].iter().zip([2000.0, 4000.0, 6000.0]) {
        assert_eq!(figure(&recorder, series), expected, "{series}");
    }
    assert!(figure(&recorder, SERIES[7]) > 0.0);
    assert_eq!(figure(&recorder, SERIES[12]), 0.0);
    assert_eq!(figure(&recorder, "panoply_queue_duration_seconds_count"), 3.0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_execution_of_all_its_rows() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let batching = DynamicBatching { max_queue_delay: Duration::from_millis(10), ..DynamicBatching::default() };
    let spec = ModelSpec { dynamic_batching: Some(batching), ..spec("m", &["x"], &["y"]) };
    let model = model_of(spec, &recorder, &Arc::new(Barrier::new(1)));
    let (mut first, mut second) = (model.infer(request("", "x", 2)), model.infer(request("", "x", 1)));
    assert!((&mut first).now_or_never().is_none());
    tokio::time::advance(Duration::from_millis(4)).await;
    assert!((&mut second).now_or_never().is_none());
    let mut gone = model.infer(request("", "x", 1));
    assert!((&mut gone).now_or_never().is_none());
    // Four rows are a full batch.
    assert_eq!(figure(&recorder, SERIES[12]), 0.0);
    gone.await.expect("runs");
    first.await.expect("runs");
    second.await.expect("runs");
    let expected = [3.0, 0.0, 0.0, 0.0, 0.0, 4.0, 1.0];
    for (series, expected) in SERIES.iter().zip(expected) {
        assert_eq!(figure(&recorder, series), expected, "{series}");
    }
    assert_eq!(figure(&recorder, SERIES[8]), 4000.0, "only the first one waited");
    assert_eq!(figure(&recorder, "panoply_tensor_copies_total{reason=\"batching\"}"), 1.0);

    let mut gone = model.infer(request("", "x", 1));
    assert!((&mut gone).now_or_never().is_none());
    assert_eq!(figure(&recorder, SERIES[12]), 1.0);
    drop(gone);
    assert_eq!((figure(&recorder, SERIES[12]), figure(&recorder, SERIES[3])), (0.0, 1.0), "it left, as cancelled");
}

/// Two branches meet at a barrier inside their executions: this hangs unless they run at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_run_at_the_same_time_and_their_times_add_up_in_the_ensemble() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let barrier = Arc::new(Barrier::new(2));
    let models = ["left", "right"].map(|name| model(name, &recorder, &barrier));
    let step = |model: &str| StepSpec {
        model: model.into(),
        version: None,
        inputs: [("x".into(), "in".into())].into(),
        outputs: [("y".into(), model.into())].into(),
    };
    let steps = vec![step("left"), step("right")];
    let spec = ModelSpec { ensemble: Some(EnsembleSpec::new(steps)), ..spec("m", &["in"], &["left", "right"]) };
    let members = models.each_ref().map(|model| model.info().spec.clone());
    let plan = ensemble_plan::plan(&spec, |name, _| members.iter().find(|m| &*m.name == name).map(|m| &**m));
    let steps = models.iter().map(|model| model.clone() as Arc<dyn InferenceService>).collect();
    let metrics = metrics::with_local_recorder(&recorder, || ModelMetrics::new("m", 1));
    let ensemble = Ensemble::new(info(spec), plan.expect("right"), steps, CONFIG, metrics);
    let response = ensemble.infer(request("", "in", 2)).await.expect("runs");
    assert_eq!(response.outputs.len(), 2);
    assert_eq!(response.model.expect("set").spec.name.as_ref(), "m");
    let expected = [1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0];
    for (series, expected) in SERIES.iter().zip(expected) {
        assert_eq!(figure(&recorder, series), expected, "{series}");
    }
    for (series, expected) in SERIES[9..12].iter().zip([2000.0, 4000.0, 6000.0]) {
        assert_eq!(figure(&recorder, series), expected, "{series}");
    }
    assert_eq!(figure(&recorder, "nv_inference_count{model=\"left\""), 2.0, "composing models are counted as well");
}

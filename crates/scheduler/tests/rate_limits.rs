//! Models that share resources, on a real runtime: never more of them run at once than there is for, and nobody is lost.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use inference::{
    Batch, DataType, Device, DynamicBatching, ErrorKind, InferRequest, InferResponse, InferenceService, InputSpec,
    LoadedModel, MemoryUsage, ModelInfo, ModelInstance, ModelSpec, NamedTensor, OutputSpec, RateLimiter,
    ResourceDemand, Result, Shape, Tensor,
};
use scheduler::{Executor, ModelMetrics, ResourceLimit, ScheduledModel, SchedulerConfig, StreamConfig};

const CONFIG: SchedulerConfig = SchedulerConfig {
    max_queue_size: 1000,
    infer_timeout: Duration::from_secs(60),
    adaptive_batching: false,
    stream: StreamConfig::DEFAULT,
};

/// Counts how many run at once.
#[derive(Clone, Default)]
struct Together {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Echo(Together);

impl ModelInstance for Echo {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        let now = self.0.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_micros(300));
        self.0.now.fetch_sub(1, Ordering::SeqCst);
        let answer = |request: &InferRequest| {
            let x = request.input("x").expect("checked").clone();
            Ok(InferResponse::new(vec![NamedTensor::new("y", x)]))
        };
        batch.requests.iter().map(answer).collect()
    }
}

fn spec(batching: bool) -> ModelSpec {
    let (datatype, dims) = (DataType::Int32, Shape::from([1]));
    let input = InputSpec { name: "x".into(), datatype, dims: dims.clone(), reshape: None, optional: false };
    let output = OutputSpec { name: "y".into(), datatype, dims, reshape: None, label_filename: None };
    ModelSpec {
        max_batch_size: 4,
        inputs: vec![input],
        outputs: vec![output],
        dynamic_batching: batching.then(DynamicBatching::default),
        ..ModelSpec::new("m", "fake")
    }
}

fn needs(count: u32) -> RateLimiter {
    RateLimiter { resources: vec![ResourceDemand { name: "R".to_owned(), global: true, count }], priority: 1 }
}

/// A model of two instances, each of which needs so much of `R`.
fn model(executor: &Executor, count: u32, batching: bool, together: &Together) -> Arc<ScheduledModel> {
    let executor = executor.for_model("m", &vec![(Device::Host, needs(count)); 2]).expect("there is enough");
    let instances = (0..2).map(|_| Box::new(Echo(together.clone())) as Box<dyn ModelInstance>).collect();
    let loaded = LoadedModel { instances, memory: MemoryUsage::on(Device::Host, 1) };
    let (config, labels) = Default::default();
    let info = ModelInfo { spec: Arc::new(spec(batching)), version: 1, versions: vec![1], config, labels };
    ScheduledModel::new(Arc::new(info), loaded, executor, CONFIG, ModelMetrics::new("m", 1))
}

fn request(number: i32) -> InferRequest {
    let x = Tensor::from_vec(Shape::from([1, 1]), vec![number]).expect("fits");
    InferRequest { inputs: vec![NamedTensor::new("x", x)], ..InferRequest::default() }
}

/// Many callers of both kinds of queues, some of which go away.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_more_run_at_once_than_there_is_for() {
    let limit = ResourceLimit { name: "r".to_owned(), count: 4, gpu: None };
    let executor = Executor::with_rate_limits(NonZeroUsize::new(16).expect("positive"), vec![limit]);
    let together = Together::default();
    let models = [model(&executor, 2, false, &together), model(&executor, 2, true, &together)];
    let client = |client: i32| {
        let model = models[usize::try_from(client).expect("small") % 2].clone();
        tokio::spawn(async move {
            for turn in 0..40 {
                let answer = model.infer(request(turn));
                if turn % 10 == 9 {
                    let _ = tokio::time::timeout(Duration::from_micros(100), answer).await;
                } else {
                    let response = answer.await.expect("runs");
                    assert_eq!(response.output("y"), request(turn).input("x"));
                }
            }
        })
    };
    for client in (0..12).map(client).collect::<Vec<_>>() {
        client.await.expect("no panic");
    }
    assert_eq!(together.most.load(Ordering::SeqCst), 2, "four of it are enough for two, and all of it is used");
}

#[tokio::test]
async fn a_model_that_needs_more_than_there_is_does_not_load() {
    let limit = ResourceLimit { name: "R".to_owned(), count: 4, gpu: None };
    let executor = Executor::with_rate_limits(NonZeroUsize::new(1).expect("positive"), vec![limit]);
    let error = executor.for_model("m", &[(Device::Host, needs(5))]).expect_err("too much");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("resource 'r' is limited to 4"), "{error}");
    Executor::new(NonZeroUsize::MIN).for_model("m", &[(Device::Host, needs(5))]).expect("nothing is limited");
}

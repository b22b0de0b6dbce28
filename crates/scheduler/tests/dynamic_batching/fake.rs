//! A model that writes down the batches it gets and does with them what a closure says, and requests to it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use inference::{
    Batch, DataType, Device, DynamicBatching, InferRequest, InferResponse, InputSpec, LoadedModel, MemoryUsage,
    ModelInfo, ModelInstance, ModelSpec, NamedTensor, OutputSpec, Parameter, Result, Shape, Tensor,
};
use parking_lot::Mutex;
use scheduler::{Executor, ModelMetrics, ScheduledModel, SchedulerConfig};

pub(crate) const CONFIG: SchedulerConfig = SchedulerConfig {
    max_queue_size: 100,
    infer_timeout: Duration::from_secs(60),
    adaptive_batching: false,
    stream: scheduler::StreamConfig::DEFAULT,
};

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

struct Fake<F>(F);

impl<F: FnMut(&InferRequest) -> Result<InferResponse> + Send> ModelInstance for Fake<F> {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        batch.requests.iter().map(|request| self.0(request)).collect()
    }
}

/// The values of `x` in each batch, in the order in which they ran.
pub(crate) type Seen = Arc<Mutex<Vec<Vec<i32>>>>;

/// `x` INT32 [-1] and an optional `o` in, `y` INT32 [-1] and `z` BYTES [1] out; batches up to 4.
pub(crate) fn spec(batching: DynamicBatching) -> ModelSpec {
    let input = |name: &str, optional| InputSpec {
        name: name.into(),
        datatype: DataType::Int32,
        dims: Shape::from([-1]),
        reshape: None,
        optional,
    };
    let output = |name: &str, datatype, dims: [i64; 1]| OutputSpec {
        name: name.into(),
        datatype,
        dims: Shape::from(dims),
        reshape: None,
        label_filename: None,
    };
    ModelSpec {
        max_batch_size: 4,
        inputs: vec![input("x", false), input("o", true)],
        outputs: vec![output("y", DataType::Int32, [-1]), output("z", DataType::Bytes, [1])],
        dynamic_batching: Some(batching),
        ..ModelSpec::new("m", "fake")
    }
}

pub(crate) fn info(spec: ModelSpec) -> Arc<ModelInfo> {
    let (config, labels) = Default::default();
    Arc::new(ModelInfo { spec: Arc::new(spec), version: 1, versions: vec![1], config, labels })
}

/// A model of `count` instances, each of which does what `run` says.
pub(crate) fn model<F>(spec: ModelSpec, config: SchedulerConfig, count: usize, run: F) -> Arc<ScheduledModel>
where
    F: FnMut(&InferRequest) -> Result<InferResponse> + Send + Clone + 'static,
{
    let instances = (0..count).map(|_| Box::new(Fake(run.clone())) as Box<dyn ModelInstance>).collect();
    let loaded = LoadedModel { instances, memory: MemoryUsage::on(Device::Host, 1) };
    let executor = Executor::new(NonZeroUsize::new(4).expect("positive"));
    ScheduledModel::new(info(spec), loaded, executor, config, ModelMetrics::new("m", 1))
}

/// A model of one instance that echoes, and what it saw.
pub(crate) fn recording(batching: DynamicBatching) -> (Arc<ScheduledModel>, Seen) {
    let seen = Seen::default();
    let record = seen.clone();
    let run = move |request: &InferRequest| {
        record.lock().push(values(request));
        Ok(echo(request))
    };
    (model(spec(batching), CONFIG, 1, run), seen)
}

/// A model of one instance that writes down what it sees and then waits for a message before it echoes.
pub(crate) fn gated(
    batching: DynamicBatching,
    config: SchedulerConfig,
) -> (Arc<ScheduledModel>, Seen, std::sync::mpsc::Sender<()>) {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (seen, gate) = (Seen::default(), Arc::new(Mutex::new(gate)));
    let record = seen.clone();
    let run = move |request: &InferRequest| {
        record.lock().push(values(request));
        gate.lock().recv().expect("the test holds the other end");
        Ok(echo(request))
    };
    (model(spec(batching), config, 1, run), seen, open)
}

pub(crate) fn values(request: &InferRequest) -> Vec<i32> {
    request.input("x").expect("checked").to_elements::<i32>().expect("INT32").into_owned()
}

/// `y` is `x`; `z` has one string for each row, made of the row's first number.
pub(crate) fn echo(request: &InferRequest) -> InferResponse {
    let x = request.input("x").expect("checked");
    let width = usize::try_from(x.shape()[1]).expect("small");
    let strings: Vec<String> = values(request).chunks(width).map(|row| "s".repeat(row[0] as usize % 5)).collect();
    let z = Tensor::from_strings(Shape::from([x.shape()[0], 1]), &strings).expect("fits");
    InferResponse::new(vec![NamedTensor::new("y", x.clone()), NamedTensor::new("z", z)])
}

/// What `echo` answers to `request`, alone or with others.
pub(crate) fn assert_echoes(response: &InferResponse, request: &InferRequest) {
    for (name, expected) in [("y", echo(request).output("y")), ("z", echo(request).output("z"))] {
        assert_eq!(response.output(name), expected, "{name} of {request:?}");
    }
}

/// A request of one row for each number.
pub(crate) fn request(rows: &[i32]) -> InferRequest {
    wide(rows, 1)
}

/// A request of rows of `width` numbers.
pub(crate) fn wide(numbers: &[i32], width: usize) -> InferRequest {
    let shape = Shape::from([(numbers.len() / width) as i64, width as i64]);
    let x = Tensor::from_vec(shape, numbers.to_vec()).expect("fits");
    InferRequest { inputs: vec![NamedTensor::new("x", x)], ..InferRequest::default() }
}

pub(crate) fn with(mut request: InferRequest, parameter: &str, value: i64) -> InferRequest {
    request.parameters.insert(parameter.to_owned(), Parameter::Int64(value));
    request
}

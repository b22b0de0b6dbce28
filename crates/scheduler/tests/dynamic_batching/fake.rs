//! A model that writes down the batches it gets and does with them what a closure says, and requests to it.

use std::sync::Arc;

use inference::{
    Batch, DataType, DynamicBatching, InferRequest, InferResponse, ModelInstance, ModelSpec, NamedTensor, Parameter,
    Result, Shape, Tensor,
};
use parking_lot::Mutex;
use scheduler::{ScheduledModel, SchedulerConfig};

pub(crate) use crate::setup::{CONFIG, info, ms, request, wide};
use crate::setup::{input, loaded, numbers, output, scheduled};

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
    ModelSpec {
        max_batch_size: 4,
        inputs: vec![input("x", -1, false), input("o", -1, true)],
        outputs: vec![output("y", DataType::Int32, -1), output("z", DataType::Bytes, 1)],
        dynamic_batching: Some(batching),
        ..ModelSpec::new("m", "fake")
    }
}

/// A model of `count` instances, each of which does what `run` says.
pub(crate) fn model<F>(spec: ModelSpec, config: SchedulerConfig, count: usize, run: F) -> Arc<ScheduledModel>
where
    F: FnMut(&InferRequest) -> Result<InferResponse> + Send + Clone + 'static,
{
    scheduled(spec, config, loaded(count, |_| Fake(run.clone())))
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
    numbers(request, "x")
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

pub(crate) fn with(mut request: InferRequest, parameter: &str, value: i64) -> InferRequest {
    request.parameters.insert(parameter.to_owned(), Parameter::Int64(value));
    request
}

//! What the fakes of several test programs share: a configuration, models made of instances, and numbers in tensors.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use inference::{
    DataType, Device, InferRequest, InferResponse, InputSpec, LoadedModel, MemoryUsage, ModelInfo, ModelInstance,
    ModelSpec, NamedTensor, OutputSpec, Shape, Tensor,
};
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

/// An input INT32 [dim].
pub(crate) fn input(name: &str, dim: i64, optional: bool) -> InputSpec {
    InputSpec { name: name.into(), datatype: DataType::Int32, dims: Shape::from([dim]), reshape: None, optional }
}

/// An output [dim].
pub(crate) fn output(name: &str, datatype: DataType, dim: i64) -> OutputSpec {
    OutputSpec { name: name.into(), datatype, dims: Shape::from([dim]), reshape: None, label_filename: None }
}

pub(crate) fn info(spec: ModelSpec) -> Arc<ModelInfo> {
    let (config, labels) = Default::default();
    Arc::new(ModelInfo { spec: Arc::new(spec), version: 1, versions: vec![1], config, labels })
}

/// What loading `count` instances comes to.
pub(crate) fn loaded<I: ModelInstance + 'static>(count: usize, instance: impl Fn(usize) -> I) -> LoadedModel {
    let instances = (0..count).map(|number| Box::new(instance(number)) as Box<dyn ModelInstance>);
    LoadedModel { instances: instances.collect(), memory: MemoryUsage::on(Device::Host, 1) }
}

/// The scheduler of a model, in a process where four run at once.
pub(crate) fn scheduled(spec: ModelSpec, config: SchedulerConfig, loaded: LoadedModel) -> Arc<ScheduledModel> {
    let executor = Executor::new(NonZeroUsize::new(4).expect("positive"));
    ScheduledModel::new(info(spec), loaded, executor, config, ModelMetrics::new("m", 1))
}

/// A request of rows of `width` numbers each, `x`.
pub(crate) fn wide(numbers: &[i32], width: usize) -> InferRequest {
    let shape = Shape::from([(numbers.len() / width) as i64, width as i64]);
    let x = Tensor::from_vec(shape, numbers.to_vec()).expect("fits");
    InferRequest { inputs: vec![NamedTensor::new("x", x)], ..InferRequest::default() }
}

/// A request of one row for each number.
pub(crate) fn request(rows: &[i32]) -> InferRequest {
    wide(rows, 1)
}

pub(crate) fn numbers(request: &InferRequest, name: &str) -> Vec<i32> {
    request.input(name).unwrap_or_else(|| panic!("{name}")).to_elements::<i32>().expect("INT32").into_owned()
}

pub(crate) fn y(response: &InferResponse) -> Vec<i32> {
    response.output("y").expect("returned").to_elements::<i32>().expect("INT32").into_owned()
}

//! A backend whose loads turn out as the dice say.

use inference::{
    Backend, Batch, Device, Error, InferResponse, LoadedModel, MemoryUsage, ModelArtifact, ModelInstance, Placement,
    Result,
};
use repository::{Repository, read_archive};

use super::fate;

/// The GPUs of the simulation.
pub(super) const GPUS: [u32; 3] = [0, 1, 2];

/// What the models of one archive take: a number of its own, so that sizes differ.
pub(super) fn bytes(index: usize) -> u64 {
    5 + index as u64 * 7 % 25
}

/// Where the model of one archive may be, as its configuration says it.
fn instance_group(index: usize) -> &'static str {
    match index % 6 {
        0 => "kind: KIND_GPU",
        2 | 4 => "kind: KIND_AUTO",
        3 => "kind: KIND_GPU gpus: [ 1 ]",
        5 => "kind: KIND_GPU gpus: [ 0, 2 ]",
        _ => "kind: KIND_CPU",
    }
}

/// Whether it may be on any GPU and on the host.
pub(super) fn may_be_anywhere(index: usize) -> bool {
    instance_group(index) == "kind: KIND_AUTO"
}

/// Whether a model that takes this is where it may be: there, everywhere where it has to be, and nowhere else.
pub(super) fn is_in_its_place(index: usize, usage: &MemoryUsage) -> bool {
    let on: Vec<u32> = GPUS.into_iter().filter(|ordinal| usage.get(Device::Gpu(*ordinal)) > 0).collect();
    match index % 6 {
        0 => on.len() == 1,
        2 | 4 => on.len() <= 1,
        3 => on == [1],
        5 => on == [0, 2],
        _ => on.is_empty(),
    }
}

/// The repository of one archive, as its files would be read.
pub(super) fn repository(index: usize) -> Repository {
    let folder = tempfile::tempdir().expect("temporary");
    let config = format!(
        "backend: \"dice\"\ninput [{{ name: \"x\" data_type: TYPE_UINT8 dims: [1] }}]\n\
         output [{{ name: \"y\" data_type: TYPE_UINT8 dims: [1] }}]\n\
         parameters {{ key: \"bytes\" value {{ string_value: \"{}\" }} }}\n\
         instance_group [ {{ {} }} ]\n",
        bytes(index),
        instance_group(index)
    );
    std::fs::create_dir(folder.path().join("1")).expect("writable");
    std::fs::write(folder.path().join("1/model"), "").expect("writable");
    std::fs::write(folder.path().join("config.pbtxt"), config).expect("writable");
    read_archive(folder.path(), "m").expect("valid")
}

pub(super) struct DiceBackend;

impl Backend for DiceBackend {
    fn name(&self) -> &str {
        "dice"
    }

    /// Mostly right, sometimes too low, sometimes too high.
    fn estimate(&self, model: &ModelArtifact, _: u64, placement: &Placement) -> MemoryUsage {
        let bytes = stated(model);
        let bytes = match fate(10) {
            0 => bytes / 2,
            1 => bytes * 2,
            _ => bytes,
        };
        usage(bytes, placement)
    }

    fn load(&self, model: &ModelArtifact, placement: &Placement) -> Result<LoadedModel> {
        match fate(50) {
            0 => Err(Error::internal("the dice were against it")),
            // A panic, without the noise of one.
            1 => std::panic::resume_unwind(Box::new("the dice were against it")),
            _ => {
                let instances = placement.instances.iter().map(|_| Box::new(Idle) as Box<dyn ModelInstance>);
                Ok(LoadedModel { instances: instances.collect(), memory: usage(stated(model), placement) })
            }
        }
    }
}

fn stated(model: &ModelArtifact) -> u64 {
    model.spec.parameters.get("bytes").and_then(|text| text.parse().ok()).expect("written above")
}

/// So much on each GPU that the model is on, with a little on the host; or all on the host.
fn usage(bytes: u64, placement: &Placement) -> MemoryUsage {
    let is_on_host = placement.instances.contains(&Device::Host);
    let mut usage = MemoryUsage::on(Device::Host, if is_on_host { bytes } else { 2 });
    placement.instances.iter().filter(|device| **device != Device::Host).for_each(|gpu| usage.add(*gpu, bytes));
    usage
}

/// Nobody runs it: pins stand for running.
struct Idle;

impl ModelInstance for Idle {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        batch.requests.iter().map(|_| Ok(InferResponse::new(Vec::new()))).collect()
    }
}

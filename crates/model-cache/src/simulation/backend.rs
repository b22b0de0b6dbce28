//! A backend whose loads turn out as the dice say.

use inference::{
    Backend, Batch, Device, Error, InferResponse, LoadedModel, MemoryUsage, ModelArtifact, ModelInstance, Placement,
    Result,
};
use repository::{Repository, read_archive};

use super::fate;

/// What the models of one archive take: a number of its own, so that sizes differ.
pub(super) fn bytes(index: usize) -> u64 {
    5 + index as u64 * 7 % 25
}

/// The repository of one archive, as its files would be read.
pub(super) fn repository(index: usize) -> Repository {
    let folder = tempfile::tempdir().expect("temporary");
    let config = format!(
        "backend: \"dice\"\ninput [{{ name: \"x\" data_type: TYPE_UINT8 dims: [1] }}]\n\
         output [{{ name: \"y\" data_type: TYPE_UINT8 dims: [1] }}]\n\
         parameters {{ key: \"bytes\" value {{ string_value: \"{}\" }} }}\n",
        bytes(index)
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
    fn estimate(&self, model: &ModelArtifact, _: u64, _: &Placement) -> MemoryUsage {
        let bytes = stated(model);
        usage(match fate(10) {
            0 => bytes / 2,
            1 => bytes * 2,
            _ => bytes,
        })
    }

    fn load(&self, model: &ModelArtifact, _: &Placement) -> Result<LoadedModel> {
        match fate(50) {
            0 => Err(Error::internal("the dice were against it")),
            // A panic, without the noise of one.
            1 => std::panic::resume_unwind(Box::new("the dice were against it")),
            _ => Ok(LoadedModel { instances: vec![Box::new(Idle)], memory: usage(stated(model)) }),
        }
    }
}

fn stated(model: &ModelArtifact) -> u64 {
    model.spec.parameters.get("bytes").and_then(|text| text.parse().ok()).expect("written above")
}

/// A third of the archives live on the GPU, with a little on the host.
fn usage(bytes: u64) -> MemoryUsage {
    let mut usage = MemoryUsage::on(Device::Host, if bytes.is_multiple_of(3) { 2 } else { bytes });
    if bytes.is_multiple_of(3) {
        usage.add(Device::Gpu(0), bytes);
    }
    usage
}

/// Nobody runs it: pins stand for running.
struct Idle;

impl ModelInstance for Idle {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        batch.requests.iter().map(|_| Ok(InferResponse::new(Vec::new()))).collect()
    }
}

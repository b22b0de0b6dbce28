//! The `identity` backend: every input comes back as an output. For plumbing, tests and benchmarks.

use crate::{
    Backend, Batch, Device, Error, InferRequest, InferResponse, LoadedModel, MemoryUsage, ModelArtifact, ModelInstance,
    ModelSpec, NamedTensor, Placement, Result, TensorName,
};

/// Answers each request with its own inputs: the n-th declared output is the n-th declared input, byte for byte and
/// without a copy. It needs no model file. It takes no memory of a GPU, and counts as taking what its configuration states
/// (`memory_bytes`) on each GPU that it is placed on, so that placement and budgets can be tried.
#[derive(Debug, Default)]
pub struct IdentityBackend;

impl IdentityBackend {
    /// What configurations call it.
    pub const NAME: &'static str = "identity";
}

impl Backend for IdentityBackend {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn estimate(&self, model: &ModelArtifact, _: u64, placement: &Placement) -> MemoryUsage {
        memory(&model.spec, placement)
    }

    fn load(&self, model: &ModelArtifact, placement: &Placement) -> Result<LoadedModel> {
        let pairs = pair(&model.spec)?;
        let instance = || Box::new(Identity { pairs: pairs.clone() }) as Box<dyn ModelInstance>;
        let instances = placement.instances.iter().map(|_| instance()).collect();
        Ok(LoadedModel { instances, memory: memory(&model.spec, placement) })
    }
}

fn memory(spec: &ModelSpec, placement: &Placement) -> MemoryUsage {
    let mut memory = MemoryUsage::on(Device::Host, 4096);
    for device in &placement.instances {
        if *device != Device::Host && memory.get(*device) == 0 {
            memory.add(*device, spec.memory_bytes.unwrap_or(0));
        }
    }
    memory
}

/// Matches outputs to inputs by position; types must agree.
fn pair(spec: &ModelSpec) -> Result<Vec<(TensorName, TensorName)>> {
    let counts = (spec.inputs.len(), spec.outputs.len());
    let same_types = spec.inputs.iter().zip(&spec.outputs).all(|(input, output)| input.datatype == output.datatype);
    if counts.0 != counts.1 || !same_types {
        return Err(Error::invalid_argument(format!(
            "model '{}': an identity model needs as many outputs as inputs, of the same types in the same order; it has {} and {}",
            spec.name, counts.0, counts.1
        )));
    }
    Ok(spec.inputs.iter().zip(&spec.outputs).map(|(input, output)| (input.name.clone(), output.name.clone())).collect())
}

struct Identity {
    pairs: Vec<(TensorName, TensorName)>,
}

impl Identity {
    fn answer(&self, request: &InferRequest) -> InferResponse {
        let wanted = self.pairs.iter().filter(|(_, output)| request.wants(output));
        let outputs = wanted.filter_map(|(input, output)| {
            let tensor = request.input(input)?.clone();
            Some(NamedTensor { name: output.clone(), tensor })
        });
        InferResponse::new(outputs.collect())
    }
}

impl ModelInstance for Identity {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        batch.requests.iter().map(|request| Ok(self.answer(request))).collect()
    }

    fn is_brief(&self, _: &Batch) -> bool {
        true
    }
}

//! The `square` backend: a decoupled model that answers n times with its input, n. As Triton's backend of this name.

use crate::{
    Backend, Batch, DataType, Device, Error, InferRequest, InferResponse, LoadedModel, MemoryUsage, ModelArtifact,
    ModelInstance, ModelSpec, NamedTensor, Placement, ResponseSink, Result,
};

/// `IN` is one INT32; so many responses come, each with `OUT` being `IN`. A model that batches takes batches of one row. It
/// needs no model file.
#[derive(Debug, Default)]
pub struct SquareBackend;

impl SquareBackend {
    /// What configurations call it.
    pub const NAME: &'static str = "square";
}

impl Backend for SquareBackend {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn estimate(&self, _: &ModelArtifact, _: u64, _: &Placement) -> MemoryUsage {
        MemoryUsage::on(Device::Host, 4096)
    }

    fn load(&self, model: &ModelArtifact, placement: &Placement) -> Result<LoadedModel> {
        check(&model.spec)?;
        let instances = placement.instances.iter().map(|_| Box::new(Square) as Box<dyn ModelInstance>).collect();
        Ok(LoadedModel { instances, memory: MemoryUsage::on(Device::Host, 4096) })
    }
}

fn check(spec: &ModelSpec) -> Result<()> {
    let input = spec.inputs.iter().map(|input| (&*input.name, input.datatype, input.dims.element_count()));
    let output = spec.outputs.iter().map(|output| (&*output.name, output.datatype, output.dims.element_count()));
    let one = |name| (name, DataType::Int32, Some(1));
    if spec.decoupled && input.eq([one("IN")]) && output.eq([one("OUT")]) {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "model '{}': a square model has one input IN and one output OUT, both INT32 of 1 element, and \
         `model_transaction_policy {{ decoupled: true }}`",
        spec.name
    )))
}

struct Square;

impl ModelInstance for Square {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        let refuse = |_| Err(Error::unsupported("a square model has no single response; ask for a stream"));
        batch.requests.iter().map(refuse).collect()
    }

    fn stream(&mut self, request: InferRequest, mut responses: Box<dyn ResponseSink>) {
        let result = answer(&request, &mut *responses);
        responses.end(result);
    }
}

fn answer(request: &InferRequest, responses: &mut dyn ResponseSink) -> Result<()> {
    let input = request.input("IN").ok_or_else(|| Error::invalid_argument("input 'IN' is missing"))?;
    let elements = input.to_elements::<i32>()?;
    let [count] = elements[..] else {
        return Err(Error::invalid_argument(format!(
            "a square model takes one row at a time, got {} in input 'IN'",
            elements.len()
        )));
    };
    for _ in 0..count {
        responses.send(InferResponse::new(vec![NamedTensor::new("OUT", input.clone())]))?;
    }
    Ok(())
}

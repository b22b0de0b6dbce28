//! The `repeat` backend: a decoupled model that answers with one response for each element of its input. As Triton's
//! backend of this name, for tests of streams and for clients' examples.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{
    Backend, Batch, DataType, Device, Error, InferRequest, InferResponse, InputSpec, LoadedModel, MemoryUsage,
    ModelArtifact, ModelInstance, ModelSpec, NamedTensor, OutputSpec, Placement, ResponseSink, Result, Shape, Tensor,
};

/// Inputs: `IN` INT32 `[-1]`, `DELAY` UINT32 of the same shape, `WAIT` UINT32 `[1]`. The i-th response comes `DELAY[i]`
/// milliseconds after the one before it, with `OUT` (INT32 `[1]`) being `IN[i]` and `IDX` (UINT32 `[1]`) being i. An empty
/// `IN` has no response. The instance takes the next request after `WAIT` milliseconds, also while responses to this one
/// still come. It needs no model file.
#[derive(Debug, Default)]
pub struct RepeatBackend;

/// Requests whose responses go on after their `WAIT`, each on a thread; with more the instance stays with the request.
const MAX_THREADS: usize = 64;
/// Milliseconds: nothing wakes an instance that waits.
const MAX_WAIT: u32 = 10_000;

impl RepeatBackend {
    /// What configurations call it.
    pub const NAME: &'static str = "repeat";
}

impl Backend for RepeatBackend {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn complete(&self, model: &ModelArtifact) -> Result<ModelSpec> {
        let mut spec = ModelSpec::clone(&model.spec);
        if spec.inputs.is_empty() {
            spec.inputs = inputs();
        }
        if spec.outputs.is_empty() {
            spec.outputs = outputs();
        }
        Ok(spec)
    }

    fn estimate(&self, _: &ModelArtifact, _: u64, _: &Placement) -> MemoryUsage {
        MemoryUsage::on(Device::Host, 4096)
    }

    fn load(&self, model: &ModelArtifact, placement: &Placement) -> Result<LoadedModel> {
        check(&model.spec)?;
        let instance = || Box::new(Repeat { threads: Arc::default() }) as Box<dyn ModelInstance>;
        let instances = placement.instances.iter().map(|_| instance()).collect();
        Ok(LoadedModel { instances, memory: MemoryUsage::on(Device::Host, 4096) })
    }
}

fn inputs() -> Vec<InputSpec> {
    let input = |name: &str, datatype, dims: i64| InputSpec {
        name: name.into(),
        datatype,
        dims: Shape::from([dims]),
        reshape: None,
        optional: false,
    };
    vec![input("IN", DataType::Int32, -1), input("DELAY", DataType::Uint32, -1), input("WAIT", DataType::Uint32, 1)]
}

fn outputs() -> Vec<OutputSpec> {
    let output = |name: &str, datatype| OutputSpec {
        name: name.into(),
        datatype,
        dims: Shape::from([1]),
        reshape: None,
        label_filename: None,
    };
    vec![output("OUT", DataType::Int32), output("IDX", DataType::Uint32)]
}

/// What the configuration says must be what this backend does; names, types and ranks, in any order.
fn check(spec: &ModelSpec) -> Result<()> {
    let refuse = |what: String| Err(Error::invalid_argument(format!("model '{}': {what}", spec.name)));
    if !spec.decoupled {
        return refuse("a repeat model needs `model_transaction_policy { decoupled: true }`".to_owned());
    }
    if spec.batches() {
        return refuse(format!("a repeat model needs `max_batch_size: 0`, not {}", spec.max_batch_size));
    }
    let given = |name: &str| spec.input(name).map(|input| (input.datatype, input.dims.len()));
    let same_inputs = inputs().iter().all(|input| given(&input.name) == Some((input.datatype, 1)));
    let made = |name: &str| spec.output(name).map(|output| (output.datatype, output.dims.len()));
    let same_outputs = outputs().iter().all(|output| made(&output.name) == Some((output.datatype, 1)));
    if !same_inputs || !same_outputs || (spec.inputs.len(), spec.outputs.len()) != (3, 2) {
        return refuse(
            "a repeat model has the inputs IN (INT32), DELAY (UINT32) and WAIT (UINT32) and the outputs OUT (INT32) and \
             IDX (UINT32), each of one dimension"
                .to_owned(),
        );
    }
    Ok(())
}

struct Repeat {
    /// One clone in each thread that goes on with responses.
    threads: Arc<()>,
}

impl ModelInstance for Repeat {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        let refuse = |_| Err(Error::unsupported("a repeat model has no single response; ask for a stream"));
        batch.requests.iter().map(refuse).collect()
    }

    fn stream(&mut self, request: InferRequest, responses: Box<dyn ResponseSink>) {
        let began = Instant::now();
        let (wait, plan) = match Plan::of(request) {
            Ok(planned) => planned,
            Err(error) => return responses.end(Err(error)),
        };
        if plan.duration() <= wait || Arc::strong_count(&self.threads) > MAX_THREADS {
            plan.run(responses);
        } else {
            let alive = self.threads.clone();
            let go_on = move || {
                plan.run(responses);
                drop(alive);
            };
            // Without a thread the responses' sink is dropped, which ends the request in an error.
            drop(std::thread::Builder::new().name("repeat".to_owned()).spawn(go_on));
        }
        std::thread::sleep(wait.saturating_sub(began.elapsed()));
    }
}

/// What one request asks for.
struct Plan {
    request: InferRequest,
    /// The i-th response's value, and the time before it.
    responses: Vec<(i32, Duration)>,
}

impl Plan {
    fn of(request: InferRequest) -> Result<(Duration, Plan)> {
        let values = input(&request, "IN")?.to_elements::<i32>()?.into_owned();
        let delays = input(&request, "DELAY")?.to_elements::<u32>()?.into_owned();
        let wait = input(&request, "WAIT")?.to_elements::<u32>()?.first().copied().unwrap_or(0);
        if values.len() != delays.len() {
            return Err(Error::invalid_argument(format!(
                "expected IN and DELAY shape to match, got [{}] and [{}]",
                values.len(),
                delays.len()
            )));
        }
        if wait > MAX_WAIT {
            return Err(Error::invalid_argument(format!(
                "WAIT is {wait} milliseconds; at most {MAX_WAIT} are allowed"
            )));
        }
        let delays = delays.into_iter().map(|delay| Duration::from_millis(delay.into()));
        let responses = values.into_iter().zip(delays).collect();
        Ok((Duration::from_millis(wait.into()), Plan { request, responses }))
    }

    fn duration(&self) -> Duration {
        self.responses.iter().map(|(_, delay)| *delay).sum()
    }

    fn run(self, mut sink: Box<dyn ResponseSink>) {
        let result = self.send_all(&mut *sink);
        sink.end(result);
    }

    fn send_all(&self, sink: &mut dyn ResponseSink) -> Result<()> {
        for (index, (value, delay)) in (0u32..).zip(&self.responses) {
            if !delay.is_zero() {
                sink.pause(*delay)?;
            }
            sink.send(self.response(*value, index)?)?;
        }
        Ok(())
    }

    fn response(&self, value: i32, index: u32) -> Result<InferResponse> {
        let mut outputs = Vec::with_capacity(2);
        if self.request.wants("OUT") {
            outputs.push(NamedTensor::new("OUT", Tensor::from_vec(Shape::from([1]), vec![value])?));
        }
        if self.request.wants("IDX") {
            outputs.push(NamedTensor::new("IDX", Tensor::from_vec(Shape::from([1]), vec![index])?));
        }
        Ok(InferResponse::new(outputs))
    }
}

fn input<'r>(request: &'r InferRequest, name: &str) -> Result<&'r Tensor> {
    request.input(name).ok_or_else(|| Error::invalid_argument(format!("input '{name}' is missing")))
}

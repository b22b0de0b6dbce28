//! Runs requests on an instance: one on its own, or several as one whose tensors hold the rows of all. Blocks.

use std::time::Instant;

use inference::{Batch, ComputeTiming, Error, InferRequest, InferResponse, ModelSpec, NamedTensor, Result, Tensor};

use crate::batcher::rows::{join, split};
use crate::instances::Lease;

/// Runs a batch of one request. A backend that does not time itself is timed.
///
/// # Errors
/// What the backend says; Internal, by the model, when it panics or does not return one result.
pub(crate) fn run_one(instance: Lease, batch: Batch) -> Result<InferResponse> {
    let begin = Instant::now();
    let results = instance.execute(batch)?;
    let took = begin.elapsed();
    let mut response = only_one(results)??;
    if response.timing == ComputeTiming::default() {
        response.timing.infer = took;
    }
    Ok(response)
}

fn only_one(mut results: Vec<Result<InferResponse>>) -> Result<Result<InferResponse>> {
    match (results.pop(), results.len()) {
        (Some(result), 0) => Ok(result),
        (last, others) => {
            let count = others + usize::from(last.is_some());
            Err(Error::internal(format!("a backend returned {count} results for a batch of 1 request")).from_model())
        }
    }
}

/// What came of requests that ran together.
pub(crate) struct Together {
    /// One result for each request, in order. An error of the execution is everybody's.
    pub(crate) results: Vec<Result<InferResponse>>,
    /// How many tensors had to be joined, which copies them.
    pub(crate) copies: u64,
}

/// Runs requests of equal signatures, with so many `rows` each, as one request.
pub(crate) fn run_together(
    spec: &ModelSpec,
    instance: Lease,
    mut requests: Vec<InferRequest>,
    rows: &[u32],
) -> Together {
    if requests.len() == 1
        && let Some(request) = requests.pop()
    {
        return Together { results: vec![run_one(instance, Batch { requests: vec![request] })], copies: 0 };
    }
    let begin = Instant::now();
    let count = requests.len();
    let joined = join_requests(&requests);
    drop(requests);
    let copies = joined.as_ref().map_or(0, |request| request.inputs.len() as u64);
    let joining = begin.elapsed();
    let whole =
        joined.and_then(|request| run_one(instance, Batch { requests: vec![request] })).and_then(|mut response| {
            let begin = Instant::now();
            let outputs = split_outputs(spec, &response, rows)?;
            response.timing.input = response.timing.input.saturating_add(joining);
            response.timing.output = response.timing.output.saturating_add(begin.elapsed());
            Ok((outputs, response))
        });
    let results = match whole {
        Ok((outputs, response)) => {
            let part = |outputs| InferResponse { outputs, parameters: response.parameters.clone(), ..timed(&response) };
            outputs.into_iter().map(|outputs| Ok(part(outputs))).collect()
        }
        Err(error) => vec![Err(error); count],
    };
    Together { results, copies }
}

/// Each request of a batch counts the whole time of the batch, as Triton's statistics have it.
fn timed(response: &InferResponse) -> InferResponse {
    InferResponse { timing: response.timing, ..InferResponse::default() }
}

/// One request with the rows of all, which wants what any of them wants.
fn join_requests(requests: &[InferRequest]) -> Result<InferRequest> {
    let first = requests.first().ok_or_else(|| Error::internal("a batch without requests"))?;
    let mut inputs = Vec::with_capacity(first.inputs.len());
    for input in &first.inputs {
        let tensors: Vec<&Tensor> = requests.iter().filter_map(|request| request.input(&input.name)).collect();
        let tensor = join(&tensors).map_err(|error| error.context(format!("input '{}'", input.name)))?;
        inputs.push(NamedTensor { name: input.name.clone(), tensor });
    }
    let mut outputs = Vec::new();
    if requests.iter().all(|request| !request.outputs.is_empty()) {
        for name in requests.iter().flat_map(|request| &request.outputs) {
            if !outputs.contains(name) {
                outputs.push(name.clone());
            }
        }
    }
    let (model, parameters) = (first.model.clone(), first.parameters.clone());
    Ok(InferRequest { model, inputs, outputs, parameters, ..InferRequest::default() })
}

/// The outputs of each request.
fn split_outputs(spec: &ModelSpec, response: &InferResponse, rows: &[u32]) -> Result<Vec<Vec<NamedTensor>>> {
    let mut outputs: Vec<Vec<NamedTensor>> = rows.iter().map(|_| Vec::new()).collect();
    for NamedTensor { name, tensor } in &response.outputs {
        let parts = split(tensor, rows).ok_or_else(|| {
            let total: u64 = rows.iter().map(|rows| u64::from(*rows)).sum();
            Error::internal(format!(
                "model '{}' returned output '{name}' with shape {} for a batch of {total} rows; correct the model or remove \
                 dynamic_batching from its configuration",
                spec.name,
                tensor.shape()
            ))
            .with_model(&*spec.name)
            .from_model()
        })?;
        for (outputs, tensor) in outputs.iter_mut().zip(parts) {
            outputs.push(NamedTensor { name: name.clone(), tensor });
        }
    }
    Ok(outputs)
}

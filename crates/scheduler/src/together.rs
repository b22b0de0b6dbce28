//! Runs several requests as one whose tensors hold the rows of all; where that fails, each alone, so that a bad request
//! fails alone. Blocks.

use std::time::Instant;

use inference::{Batch, Error, ErrorKind, InferRequest, InferResponse, ModelSpec, NamedTensor, Result, Tensor};

use crate::batcher::rows::{join, split};
use crate::execution::run_on;
use crate::instances::Lease;

/// What came of requests that ran together.
pub(crate) struct Together {
    /// One result for each request, in order.
    pub(crate) results: Vec<Result<InferResponse>>,
    /// How many tensors had to be joined, which copies them.
    pub(crate) copies: u64,
    /// How often the instance ran: once, and once more for each request that had to run alone.
    pub(crate) executions: u64,
}

/// Runs requests of equal signatures, with so many `rows` each, as one request.
///
/// Where that fails as it may fail for the sake of one of them, each runs alone, unless nobody waits for it any more
/// (`awaited`, by index): one bad request costs the others time, and no more. What each gets then is its own answer.
pub(crate) fn run_together(
    spec: &ModelSpec,
    mut instance: Lease,
    mut requests: Vec<InferRequest>,
    rows: &[u32],
    awaited: impl Fn(usize) -> bool,
) -> Together {
    if requests.len() == 1
        && let Some(request) = requests.pop()
    {
        let results = vec![run_on(&mut instance, Batch { requests: vec![request] })];
        return Together { results, copies: 0, executions: 1 };
    }
    let begin = Instant::now();
    let joined = join_requests(&requests);
    let copies = joined.as_ref().map_or(0, |request| request.inputs.len() as u64);
    let joining = begin.elapsed();
    let whole = joined.and_then(|request| run_on(&mut instance, Batch { requests: vec![request] }));
    match whole {
        Err(error) if instance.is_alive() && may_be_the_fault_of_one(&error) => {
            let (results, executions) = run_apart(&mut instance, requests, &error, awaited);
            Together { results, copies, executions: 1 + executions }
        }
        Err(error) => Together { results: vec![Err(error); requests.len()], copies, executions: 1 },
        Ok(mut response) => {
            drop(instance);
            response.timing.input = response.timing.input.saturating_add(joining);
            Together { results: split_response(spec, response, rows), copies, executions: 1 }
        }
    }
}

/// Whether the batch may have failed because of one request in it. A crash, or too little time, is everybody's.
fn may_be_the_fault_of_one(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidArgument | ErrorKind::Unsupported | ErrorKind::Internal | ErrorKind::NoRoom
    )
}

/// Runs each request alone. Those that nobody waits for, and those after a crash, get `error`. Returns how many ran, too.
fn run_apart(
    instance: &mut Lease,
    requests: Vec<InferRequest>,
    error: &Error,
    awaited: impl Fn(usize) -> bool,
) -> (Vec<Result<InferResponse>>, u64) {
    let mut executions = 0;
    let run = |(index, request)| {
        if !instance.is_alive() || !awaited(index) {
            return Err(error.clone());
        }
        executions += 1;
        run_on(instance, Batch { requests: vec![request] })
    };
    let results = requests.into_iter().enumerate().map(run).collect();
    (results, executions)
}

/// The answer to each request, cut out of that to all.
fn split_response(spec: &ModelSpec, mut response: InferResponse, rows: &[u32]) -> Vec<Result<InferResponse>> {
    let begin = Instant::now();
    match split_outputs(spec, &response, rows) {
        Ok(outputs) => {
            response.timing.output = response.timing.output.saturating_add(begin.elapsed());
            let part = |outputs| InferResponse { outputs, parameters: response.parameters.clone(), ..timed(&response) };
            outputs.into_iter().map(|outputs| Ok(part(outputs))).collect()
        }
        Err(error) => vec![Err(error); rows.len()],
    }
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

//! Runs several requests as one whose tensors hold the rows of all; where that fails, each alone, so that a bad request
//! fails alone. Blocks.

use std::time::Instant;

use inference::{Batch, Error, ErrorKind, InferRequest, InferResponse, ModelSpec, Result};

use crate::execution::run_one;
use crate::instances::Lease;
use crate::joint::{join_requests, split_response};

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
    let mut copies = 0;
    if requests.len() == 1
        && let Some(request) = requests.pop()
    {
        let results = vec![run_single(spec, &mut instance, request)];
        return Together { results, copies, executions: 1 };
    }
    match run_joint(spec, &mut instance, &requests, rows, &mut copies) {
        Ok(results) => Together { results, copies, executions: 1 },
        Err(error) if instance.is_alive() && may_be_the_fault_of_one(&error) => {
            let (results, executions) = run_apart(spec, &mut instance, requests, &error, awaited);
            Together { results, copies, executions: 1 + executions }
        }
        Err(error) => Together { results: vec![Err(error); requests.len()], copies, executions: 1 },
    }
}

/// Runs a batch of one request, and gives the instance back.
///
/// # Errors
/// As [`run_single`].
pub(crate) fn run_batch(spec: &ModelSpec, mut instance: Lease, mut batch: Batch) -> Result<InferResponse> {
    match batch.requests.pop() {
        Some(request) => run_single(spec, &mut instance, request),
        None => run_one(&mut instance, batch),
    }
}

/// Runs one request in the form in which the model takes its batches.
///
/// # Errors
/// As [`run_one`]; Internal, by the model, when an output does not fit the request.
pub(crate) fn run_single(spec: &ModelSpec, instance: &mut Lease, request: InferRequest) -> Result<InferResponse> {
    if spec.ragged.is_empty() {
        return run_one(instance, Batch { requests: vec![request] });
    }
    let rows = request.inputs.first().and_then(|input| input.tensor.shape().first().copied());
    let rows = rows.and_then(|rows| u32::try_from(rows).ok()).unwrap_or(1);
    let mut results = run_joint(spec, instance, std::slice::from_ref(&request), &[rows], &mut 0)?;
    results.pop().unwrap_or_else(|| Err(Error::internal("a request without an answer")))
}

/// Runs requests as one.
///
/// # Errors
/// When it does not run. What cannot be cut into answers is every request's own error.
fn run_joint(
    spec: &ModelSpec,
    instance: &mut Lease,
    requests: &[InferRequest],
    rows: &[u32],
    copies: &mut u64,
) -> Result<Vec<Result<InferResponse>>> {
    let begin = Instant::now();
    let joint = join_requests(spec, requests)?;
    *copies = joint.copies;
    let joining = begin.elapsed();
    let mut response = run_one(instance, Batch { requests: vec![joint.request] })?;
    response.timing.input = response.timing.input.saturating_add(joining);
    Ok(match split_response(spec, response, requests, rows) {
        Ok(responses) => responses.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error); requests.len()],
    })
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
    spec: &ModelSpec,
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
        run_single(spec, instance, request)
    };
    let results = requests.into_iter().enumerate().map(run).collect();
    (results, executions)
}

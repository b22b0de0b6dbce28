//! Runs several requests as one whose tensors hold the rows of all; where that fails, each alone, so that a bad request
//! fails alone. Blocks.

use std::time::Instant;

use inference::{Batch, Cancellation, ComputeTiming, Error, ErrorKind, InferRequest, InferResponse, ModelSpec, Result};

use crate::audience::Audience;
use crate::execution::run_one;
use crate::instances::Lease;
use crate::joint::{join_requests, split_response};

/// What came of requests that ran together.
pub(crate) struct Together {
    /// One result for each request, in order.
    pub(crate) results: Vec<Result<InferResponse>>,
    /// How many tensors had to be joined, which copies them.
    pub(crate) copies: u64,
    /// What the instance ran: the batch, and then each request that had to run alone.
    pub(crate) executions: Vec<Execution>,
}

/// One run of an instance.
pub(crate) struct Execution {
    pub(crate) rows: u64,
    /// Absent where it failed.
    pub(crate) timing: Option<ComputeTiming>,
}

impl Execution {
    fn new(rows: u64, result: Option<&Result<InferResponse>>) -> Self {
        let response = result.and_then(|result| result.as_ref().ok());
        Execution { rows, timing: response.map(|response| response.timing) }
    }
}

/// Runs requests of equal signatures, with so many `rows` each, as one request.
///
/// Where that fails as it may fail for the sake of one of them, each runs alone, unless nobody waits for it any more: one bad
/// request costs the others time, and no more. What each gets then is its own answer. A run that nobody of the `audience`
/// waits for any more is cancelled.
pub(crate) fn run_together(
    spec: &ModelSpec,
    mut instance: Lease,
    mut requests: Vec<InferRequest>,
    rows: &[u32],
    audience: &Audience,
    may_run_alone: bool,
) -> Together {
    let mut copies = 0;
    let all = audience.of_all();
    let total = rows.iter().map(|rows| u64::from(*rows)).sum();
    if requests.len() == 1
        && let Some(request) = requests.pop()
    {
        let results = vec![run_single(spec, &mut instance, request, all)];
        let executions = vec![Execution::new(total, results.first())];
        return Together { results, copies, executions };
    }
    match run_joint(spec, &mut instance, &requests, rows, all, &mut copies) {
        Ok(results) => {
            let executions = vec![Execution::new(total, results.first())];
            Together { results, copies, executions }
        }
        Err(error) if may_run_alone && instance.is_alive() && may_be_the_fault_of_one(&error) => {
            let mut executions = vec![Execution::new(total, None)];
            let results = run_apart(spec, &mut instance, requests, &error, audience, |index, result| {
                executions.push(Execution::new(u64::from(rows[index]), Some(result)));
            });
            Together { results, copies, executions }
        }
        Err(error) => {
            let executions = vec![Execution::new(total, None)];
            Together { results: vec![Err(error); requests.len()], copies, executions }
        }
    }
}

/// Runs a batch of one request, and gives the instance back.
///
/// # Errors
/// As [`run_single`].
pub(crate) fn run_batch(spec: &ModelSpec, mut instance: Lease, mut batch: Batch) -> Result<InferResponse> {
    match batch.requests.pop() {
        Some(request) => run_single(spec, &mut instance, request, batch.cancellation),
        None => run_one(&mut instance, batch),
    }
}

/// Runs one request in the form in which the model takes its batches.
///
/// # Errors
/// As [`run_one`]; Internal, by the model, when an output does not fit the request.
pub(crate) fn run_single(
    spec: &ModelSpec,
    instance: &mut Lease,
    request: InferRequest,
    cancellation: Cancellation,
) -> Result<InferResponse> {
    if spec.ragged.is_empty() {
        return run_one(instance, Batch { requests: vec![request], cancellation });
    }
    let rows = request.inputs.first().and_then(|input| input.tensor.shape().first().copied());
    let rows = rows.and_then(|rows| u32::try_from(rows).ok()).unwrap_or(1);
    let mut results = run_joint(spec, instance, std::slice::from_ref(&request), &[rows], cancellation, &mut 0)?;
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
    cancellation: Cancellation,
    copies: &mut u64,
) -> Result<Vec<Result<InferResponse>>> {
    let begin = Instant::now();
    let joint = join_requests(spec, requests)?;
    *copies = joint.copies;
    let joining = begin.elapsed();
    let mut response = run_one(instance, Batch { requests: vec![joint.request], cancellation })?;
    response.timing.input = response.timing.input.saturating_add(joining);
    Ok(match split_response(spec, response, requests, rows) {
        Ok(responses) => responses.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error); requests.len()],
    })
}

/// Whether the batch may have failed because of one request in it. A crash, too little time, or that nobody waits, is everybody's.
fn may_be_the_fault_of_one(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidArgument | ErrorKind::Unsupported | ErrorKind::Internal | ErrorKind::NoRoom
    )
}

/// Runs each request alone, and tells `ran` about it. Those that nobody waits for, and those after a crash, get `error`.
fn run_apart(
    spec: &ModelSpec,
    instance: &mut Lease,
    requests: Vec<InferRequest>,
    error: &Error,
    audience: &Audience,
    mut ran: impl FnMut(usize, &Result<InferResponse>),
) -> Vec<Result<InferResponse>> {
    let run = |(index, request)| {
        let Some(cancellation) = audience.of_one(index).filter(|_| instance.is_alive()) else {
            return Err(error.clone());
        };
        let result = run_single(spec, instance, request, cancellation);
        ran(index, &result);
        result
    };
    requests.into_iter().enumerate().map(run).collect()
}

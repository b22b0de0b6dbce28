//! Runs a request on an instance. Blocks.

use std::time::Instant;

use inference::{Batch, ComputeTiming, Error, InferResponse, Result};

use crate::instances::Lease;

/// Runs a batch of one request, unless it is cancelled already. A backend that does not time itself is timed.
///
/// # Errors
/// What the backend says; Cancelled or DeadlineExceeded, when nobody waits for it any more; Internal, by the model, when it panics or does not return one result.
pub(crate) fn run_one(instance: &mut Lease, batch: Batch) -> Result<InferResponse> {
    batch.cancellation.check(instance.model())?;
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

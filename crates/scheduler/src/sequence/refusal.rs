//! What a client is told whose request is not taken into its sequence, or falls out of it; pure.

use inference::{CorrelationId, Error, InferRequest};

use super::endings::Why;

/// The request names no sequence.
pub(super) fn no_sequence(model: &str, request: &InferRequest) -> Error {
    let id = request.display_id();
    Error::invalid_argument(format!(
        "[request id: {id}] inference request to model '{model}' must specify a non-zero or non-empty correlation ID; set \
         sequence_id"
    ))
}

/// The request has more than one row.
pub(super) fn several_rows(model: &str, request: &InferRequest) -> Error {
    let id = request.display_id();
    Error::invalid_argument(format!(
        "[request id: {id}] inference request to model '{model}' must specify batch-size 1 due to requirements of sequence batcher"
    ))
}

/// The sequence is not known.
pub(super) fn not_started(model: &str, request_id: &str, id: &CorrelationId, why: Option<Why>) -> Error {
    let ended = match why {
        None => "",
        Some(Why::Idle) => {
            "; the sequence has ended: it was idle for longer than max_sequence_idle_microseconds of the model's configuration"
        }
        Some(Why::Crashed) => "; the sequence has ended: the model instance that had it crashed",
        Some(Why::StartLost) => "; the request that was to start the sequence timed out or was cancelled",
    };
    Error::invalid_argument(format!(
        "[request id: {request_id}] inference request for sequence {id} to model '{model}' must specify the START flag on the first \
         request of the sequence{ended}"
    ))
}

/// A request that waited behind the one that was to start its sequence, which left.
pub(super) fn orphaned(model: &str) -> Error {
    Error::unavailable(format!(
        "the request that was to start this sequence of model '{model}' timed out or was cancelled; start the \
         sequence again"
    ))
}

/// A request that waited on an instance that crashed.
pub(super) fn stranded(model: &str, id: &CorrelationId) -> Error {
    Error::unavailable(format!(
        "sequence {id} of model '{model}' has ended: the model instance that had it crashed; start the sequence again"
    ))
}

/// A request that ran on an instance when it crashed.
pub(super) fn ended_with(crash: &Error, id: &CorrelationId) -> Error {
    let error =
        Error::new(crash.kind(), format!("{}; sequence {id} has ended with the instance that had it", crash.message()));
    let error = error.with_model(crash.model().unwrap_or_default());
    if crash.origin() == inference::Origin::Model { error.from_model() } else { error }
}

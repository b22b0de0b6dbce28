//! The one outcome of a request whose answer goes on after its head is sent.

use inference::ModelKey;

use crate::infer;
use crate::status::{Failure, Status};
use crate::telemetry::InFlight;
use crate::trace::RequestSpan;

/// What is told once how the request ended. Dropped unsaid, the request was cancelled.
pub(crate) struct Outcome {
    pub(crate) in_flight: InFlight,
    /// None where the request is not traced.
    pub(crate) span: Option<RequestSpan>,
}

impl Outcome {
    pub(crate) fn succeed(self) {
        if let Some(span) = self.span {
            span.end(None);
        }
        self.in_flight.succeed();
    }

    /// Logs the failure as well.
    pub(crate) fn fail(self, key: &ModelKey, failure: &Failure, status: &Status) {
        infer::log(key, failure, status);
        if let Some(span) = self.span {
            span.end(Some(failure));
        }
        self.in_flight.fail(status.label);
    }
}

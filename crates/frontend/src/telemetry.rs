//! The front end's metrics: one outcome per inference request, however it ends, and the forced copies of tensor bytes.

use std::time::Instant;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::status::SUCCESS;

/// Which API a request came through; the metric label `surface`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    /// KServe v2.
    V2,
    /// `/invocations`.
    Invocations,
    /// The SageMaker runtime API.
    Runtime,
    /// The SageMaker container contract.
    Container,
    /// gRPC: a call, or one request of a stream.
    Grpc,
}

impl Surface {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Surface::V2 => "v2",
            Surface::Invocations => "invocations",
            Surface::Runtime => "sagemaker_runtime",
            Surface::Container => "sagemaker_container",
            Surface::Grpc => "grpc",
        }
    }
}

/// Tells the recorder what this crate's metrics mean.
pub fn describe_metrics() {
    describe_counter!("panoply_requests_total", Unit::Count, "Inference requests by API and outcome");
    describe_histogram!(
        "panoply_request_duration_seconds",
        Unit::Seconds,
        "Time from an inference request's head to its response's head"
    );
    describe_gauge!("panoply_requests_in_flight", Unit::Count, "Inference requests being worked on");
    describe_counter!("panoply_tensor_copies_total", Unit::Count, "Copies of tensor bytes that could not be avoided");
    describe_counter!("panoply_tensor_copied_bytes_total", Unit::Bytes, "Tensor bytes copied, by reason");
}

/// Counts a copy of `bytes` that could not be avoided.
pub(crate) fn count_copy(reason: &'static str, bytes: usize) {
    counter!("panoply_tensor_copies_total", "reason" => reason).increment(1);
    counter!("panoply_tensor_copied_bytes_total", "reason" => reason).increment(bytes as u64);
}

/// An inference request in flight. Dropping it records its one outcome: the one that was set; `internal` in a panic; or
/// `cancelled`, because then the client went away and took the future with it.
pub(crate) struct InFlight {
    surface: Surface,
    began: Instant,
    outcome: Option<&'static str>,
}

impl InFlight {
    pub(crate) fn begin(surface: Surface) -> Self {
        gauge!("panoply_requests_in_flight").increment(1);
        InFlight { surface, began: Instant::now(), outcome: None }
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn succeed(mut self) {
        self.outcome = Some(SUCCESS);
    }

    pub(crate) fn fail(mut self, label: &'static str) {
        self.outcome = Some(label);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let unfinished = if std::thread::panicking() { "internal" } else { "cancelled" };
        let surface = self.surface.label();
        let outcome = self.outcome.unwrap_or(unfinished);
        gauge!("panoply_requests_in_flight").decrement(1);
        counter!("panoply_requests_total", "surface" => surface, "outcome" => outcome).increment(1);
        histogram!("panoply_request_duration_seconds", "surface" => surface).record(self.began.elapsed());
    }
}

//! What bounds the waiting and running of requests.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use inference::{InferRequest, ModelSpec};

/// The bounds of one model's scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// How many requests may wait for one model; those that run are not counted. 0: a request that cannot start at once
    /// is refused. Past it requests end in Overloaded, "Exceeds maximum queue size".
    pub max_queue_size: usize,
    /// How long a request may wait, counted from its arrival; `infer_timeout` of the model's parameters overrides it.
    pub infer_timeout: Duration,
    /// Whether models with dynamic batching learn how long to wait for others, where they do not say.
    pub adaptive_batching: bool,
    /// How responses of decoupled models wait for their clients.
    pub stream: StreamConfig,
}

/// The bounds of the responses of one request to a decoupled model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// How many responses may wait for the client before the model waits for it; also how many responses of a decoupled step
    /// may be under way in the rest of its ensemble, where that does not say (`--stream-buffer-size`).
    pub buffer_size: NonZeroUsize,
    /// How long a model may wait for the client, all responses of a request together (`--stream-stall-timeout`).
    pub stall_timeout: Duration,
}

impl StreamConfig {
    /// What the server's settings default to.
    pub const DEFAULT: StreamConfig = StreamConfig {
        buffer_size: NonZeroUsize::new(16).expect("16 is not 0"),
        stall_timeout: Duration::from_secs(30),
    };
}

impl SchedulerConfig {
    /// When a request that arrived at `arrived` stops waiting: at its own deadline or at the timeout, whichever is first.
    /// `None` when the timeout lies beyond what the clock can say.
    pub(crate) fn deadline(&self, spec: &ModelSpec, request: &InferRequest, arrived: Instant) -> Option<Instant> {
        let timeout = arrived.checked_add(spec.infer_timeout.unwrap_or(self.infer_timeout));
        match (timeout, request.deadline) {
            (Some(timeout), Some(deadline)) => Some(timeout.min(deadline)),
            (timeout, deadline) => timeout.or(deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_deadline_and_timeout_counts() {
        let config = SchedulerConfig {
            max_queue_size: 1,
            infer_timeout: Duration::from_secs(10),
            adaptive_batching: false,
            stream: StreamConfig::DEFAULT,
        };
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut spec = ModelSpec::new("m", "identity");
        let mut request = InferRequest::default();
        assert_eq!(config.deadline(&spec, &request, now), Some(after(10)));
        request.deadline = Some(after(3));
        assert_eq!(config.deadline(&spec, &request, now), Some(after(3)));
        spec.infer_timeout = Some(Duration::from_secs(2));
        assert_eq!(config.deadline(&spec, &request, now), Some(after(2)));
        spec.infer_timeout = Some(Duration::MAX);
        assert_eq!(config.deadline(&spec, &request, now), Some(after(3)));
    }
}

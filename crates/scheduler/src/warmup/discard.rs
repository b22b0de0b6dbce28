//! Runs one request of a decoupled model whose responses nobody wants.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use inference::{Cancellation, InferRequest, InferResponse, ModelInstance, ResponseSink, Result};

use super::clock::{Clock, check, too_late};
use crate::refusal::unfinished;

/// Runs a request to its end, which may come after the instance is done with it. Blocks, at most until the time is over
/// where the model heeds it.
///
/// # Errors
/// How the request ended; DeadlineExceeded.
pub(super) fn stream(instance: &mut dyn ModelInstance, request: InferRequest, clock: &Clock) -> Result<()> {
    let (ended, end) = mpsc::channel();
    instance.stream(request, Box::new(Discard { until: clock.until(), cancellation: clock.cancellation(), ended }));
    let ended = match clock.until() {
        Some(until) => end.recv_timeout(until.saturating_duration_since(Instant::now())),
        None => end.recv().map_err(RecvTimeoutError::from),
    };
    ended.unwrap_or_else(|failed| match failed {
        RecvTimeoutError::Timeout => Err(too_late()),
        RecvTimeoutError::Disconnected => Err(unfinished()),
    })
}

struct Discard {
    until: Option<Instant>,
    cancellation: Cancellation,
    ended: Sender<Result<()>>,
}

impl ResponseSink for Discard {
    fn send(&mut self, _: InferResponse) -> Result<()> {
        check(self.until)
    }

    fn pause(&mut self, duration: Duration) -> Result<()> {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        std::thread::sleep(left.map_or(duration, |left| left.min(duration)));
        check(self.until)
    }

    fn is_open(&self) -> bool {
        check(self.until).is_ok()
    }

    fn cancellation(&self) -> Cancellation {
        self.cancellation.clone()
    }

    fn end(self: Box<Self>, result: Result<()>) {
        // Nobody waits any longer where the load has failed meanwhile.
        let _ = self.ended.send(result);
    }
}

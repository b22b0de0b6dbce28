//! Runs one request of a decoupled model whose responses nobody wants.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use inference::{InferRequest, InferResponse, ModelInstance, ResponseSink, Result};

use super::too_late;
use crate::refusal::unfinished;

/// Runs a request to its end, which may come after the instance is done with it. Blocks, at most until `until` where the
/// model heeds it.
///
/// # Errors
/// How the request ended; DeadlineExceeded.
pub(super) fn stream(instance: &mut dyn ModelInstance, request: InferRequest, until: Option<Instant>) -> Result<()> {
    let (ended, end) = mpsc::channel();
    instance.stream(request, Box::new(Discard { until, ended }));
    let ended = match until {
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
    ended: Sender<Result<()>>,
}

impl Discard {
    fn check(&self) -> Result<()> {
        match self.until {
            Some(until) if until <= Instant::now() => Err(too_late()),
            _ => Ok(()),
        }
    }
}

impl ResponseSink for Discard {
    fn send(&mut self, _: InferResponse) -> Result<()> {
        self.check()
    }

    fn pause(&mut self, duration: Duration) -> Result<()> {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        std::thread::sleep(left.map_or(duration, |left| left.min(duration)));
        self.check()
    }

    fn is_open(&self) -> bool {
        self.check().is_ok()
    }

    fn end(self: Box<Self>, result: Result<()>) {
        // Nobody waits any longer where the load has failed meanwhile.
        let _ = self.ended.send(result);
    }
}

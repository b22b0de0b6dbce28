//! Ends a warm-up when its time is over.

use std::time::Instant;

use inference::{CancelCause, Cancellation, Error, Result};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// The time that a warm-up has.
pub(super) struct Clock {
    until: Option<Instant>,
    cancellation: Cancellation,
    alarm: Option<AbortHandle>,
}

impl Clock {
    /// Within a runtime, what runs at `until` is cancelled then.
    pub(super) fn start(until: Option<Instant>) -> Self {
        let cancellation = Cancellation::new();
        let alarm = until.zip(Handle::try_current().ok()).map(|(until, runtime)| {
            let cancellation = cancellation.clone();
            let ring = async move {
                tokio::time::sleep_until(until.into()).await;
                cancellation.cancel(CancelCause::Overdue);
            };
            runtime.spawn(ring).abort_handle()
        });
        Clock { until, cancellation, alarm }
    }

    /// When its time is over.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Cancelled when its time is over.
    pub(super) fn cancellation(&self) -> Cancellation {
        self.cancellation.clone()
    }

    /// # Errors
    /// DeadlineExceeded when its time is over.
    pub(super) fn check(&self) -> Result<()> {
        check(self.until)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        if let Some(alarm) = &self.alarm {
            alarm.abort();
        }
    }
}

/// # Errors
/// DeadlineExceeded from `until` on.
pub(super) fn check(until: Option<Instant>) -> Result<()> {
    match until {
        Some(until) if until <= Instant::now() => Err(too_late()),
        _ => Ok(()),
    }
}

/// What a load is told whose warm-up takes too long.
pub(super) fn too_late() -> Error {
    Error::deadline_exceeded("the load took longer than --load-timeout allows")
}

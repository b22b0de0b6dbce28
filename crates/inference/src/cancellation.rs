//! Tells a run that nobody waits for it any more, so that it stops instead of holding its instance to the end.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::{Error, ErrorKind, Result};

/// Why nobody waits for a run any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelCause {
    /// Whoever waited went away.
    Abandoned,
    /// The time that the request has is over.
    Overdue,
}

/// A run that can be told from another thread to stop.
pub trait Interrupt: Send + Sync {
    /// Makes the run end soon. It may be told more than once, and before the run begins.
    fn interrupt(&self);
}

/// Whether a run is cancelled; clones are about the same run. The default never is, and costs nothing.
#[derive(Clone, Default)]
pub struct Cancellation(Option<Arc<Inner>>);

#[derive(Default)]
struct Inner {
    cause: OnceLock<CancelCause>,
    running: Mutex<Option<Arc<dyn Interrupt>>>,
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, Option<Arc<dyn Interrupt>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cancellation {
    /// One that is never cancelled.
    pub fn never() -> Self {
        Cancellation(None)
    }

    /// One that can be cancelled.
    pub fn new() -> Self {
        Cancellation(Some(Arc::default()))
    }

    /// Cancels the run: interrupts it if it runs, and otherwise as soon as it begins. The first cause stays.
    pub fn cancel(&self, cause: CancelCause) {
        let Some(inner) = &self.0 else { return };
        if inner.cause.set(cause).is_ok()
            && let Some(running) = &*inner.running()
        {
            running.interrupt();
        }
    }

    /// Why it is cancelled, if it is.
    pub fn cause(&self) -> Option<CancelCause> {
        self.0.as_ref().and_then(|inner| inner.cause.get().copied())
    }

    /// # Errors
    /// Cancelled or DeadlineExceeded, for a model of this name, when it is cancelled.
    pub fn check(&self, model: &str) -> Result<()> {
        let (kind, why) = match self.cause() {
            None => return Ok(()),
            Some(CancelCause::Abandoned) => (ErrorKind::Cancelled, "nobody waits for its answer any more"),
            Some(CancelCause::Overdue) => (ErrorKind::DeadlineExceeded, "the time that its request has is over"),
        };
        Err(Error::new(kind, format!("the run of model '{model}' was ended: {why}")).with_model(model))
    }

    /// Interrupts `run` when it is cancelled from now on, or is already, until the returned guard is dropped; after that it
    /// is not interrupted any more. One run at a time.
    pub fn interrupts(&self, run: &Arc<dyn Interrupt>) -> Interrupting<'_> {
        let inner = self.0.as_deref();
        if let Some(inner) = inner {
            let mut running = inner.running();
            // Whoever cancels sets the cause first and then looks who runs: one of the two sees the other.
            if inner.cause.get().is_some() {
                run.interrupt();
            }
            *running = Some(run.clone());
        }
        Interrupting(inner)
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Cancellation").field(&self.cause()).finish()
    }
}

/// A run that is interrupted when it is cancelled.
pub struct Interrupting<'c>(Option<&'c Inner>);

impl Drop for Interrupting<'_> {
    fn drop(&mut self) {
        if let Some(inner) = self.0 {
            inner.running().take();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Interrupt for Count {
        fn interrupt(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn run() -> (Arc<Count>, Arc<dyn Interrupt>) {
        let count = Arc::new(Count::default());
        (count.clone(), count)
    }

    #[test]
    fn what_runs_is_interrupted_and_what_has_ended_is_not() {
        let cancellation = Cancellation::new();
        let ((first, first_run), (second, second_run)) = (run(), run());
        drop(cancellation.interrupts(&first_run));
        let interrupting = cancellation.interrupts(&second_run);
        assert!(cancellation.check("m").is_ok());
        cancellation.clone().cancel(CancelCause::Overdue);
        cancellation.cancel(CancelCause::Abandoned);
        drop(interrupting);
        assert_eq!([&first, &second].map(|count| count.0.load(Ordering::SeqCst)), [0, 1]);
        let error = cancellation.check("m").expect_err("cancelled");
        assert_eq!((error.kind(), error.model()), (ErrorKind::DeadlineExceeded, Some("m")));
    }

    #[test]
    fn what_begins_too_late_is_interrupted_at_once() {
        let (cancellation, (count, run)) = (Cancellation::new(), run());
        cancellation.cancel(CancelCause::Abandoned);
        let _interrupting = cancellation.interrupts(&run);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(cancellation.check("m").expect_err("cancelled").kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn never_is_never() {
        let (cancellation, (count, run)) = (Cancellation::never(), run());
        let _interrupting = cancellation.interrupts(&run);
        cancellation.cancel(CancelCause::Abandoned);
        assert_eq!((count.0.load(Ordering::SeqCst), cancellation.cause()), (0, None));
    }

    /// However the two fall together: a run that its guard still covers once both have happened was interrupted.
    #[test]
    fn no_interruption_is_lost_in_a_race() {
        for _ in 0..2_000 {
            let (cancellation, (count, run)) = (Cancellation::new(), run());
            let cancels = cancellation.clone();
            let other = std::thread::spawn(move || cancels.cancel(CancelCause::Abandoned));
            let interrupting = cancellation.interrupts(&run);
            other.join().expect("does not panic");
            assert!(count.0.load(Ordering::SeqCst) >= 1);
            drop(interrupting);
        }
    }
}

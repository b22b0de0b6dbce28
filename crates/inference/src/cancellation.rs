//! Tells work under way that nobody waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a request was given up. Cheap to clone; all clones share one answer.
///
/// Dropping a request's future stops it where it waits. Where it runs it cannot be stopped, and looks here before it goes
/// on to the next step.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<AtomicBool>);

/// Cancels when it is dropped.
#[derive(Debug)]
pub struct CancelOnDrop(Cancellation);

impl Cancellation {
    /// Gives the request up.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the request was given up.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A guard whose drop cancels; harmless once the answer is there.
    pub fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_one_answer() {
        let (asked, guard) = {
            let cancellation = Cancellation::default();
            (cancellation.clone(), cancellation.cancel_on_drop())
        };
        assert!(!asked.is_cancelled());
        drop(guard);
        assert!(asked.is_cancelled());
    }
}

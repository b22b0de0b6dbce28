//! Wakes whoever waits for room in memory; costs one atomic load when nobody does.

use std::sync::atomic::{AtomicUsize, Ordering, fence};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Raised whenever something may have become evictable or free.
#[derive(Default)]
pub(crate) struct RoomSignal {
    waiting: AtomicUsize,
    notify: Notify,
}

impl RoomSignal {
    /// Wakes all waiters.
    pub(crate) fn raise(&self) {
        // What the caller let go of must be visible to a waiter before this looks for waiters, or both could miss the other.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.notify.notify_waiters();
        }
    }

    /// Begins to wait. Look at the state after this call and before awaiting [`Waiting::next`]: what is raised in between
    /// is not lost.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting { signal: self }
    }
}

/// A waiter.
pub(crate) struct Waiting<'a> {
    signal: &'a RoomSignal,
}

impl Waiting<'_> {
    /// The next time the signal is raised, counted from this call on.
    pub(crate) fn next(&self) -> Notified<'_> {
        self.signal.notify.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.signal.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

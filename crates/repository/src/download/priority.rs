//! How urgent a download is, and that it may become more urgent while it is under way.

use std::sync::Arc;

use tokio::sync::watch;

/// Who waits for a download; the first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A request waits for it.
    Interactive,
    /// A newer version of what is being served.
    Refresh,
    /// It may be asked for later.
    Prefetch,
}

impl Priority {
    /// Whether nobody waits for it.
    pub(crate) fn is_background(self) -> bool {
        self != Priority::Interactive
    }
}

/// The priority of one download, shared by whoever waits for it: it rises when somebody joins to whom it matters more, and
/// never falls.
#[derive(Clone, Debug)]
pub struct Urgency(Arc<watch::Sender<Priority>>);

impl Urgency {
    /// What it is now.
    pub fn now(&self) -> Priority {
        *self.0.borrow()
    }

    /// Makes it at least `priority`.
    pub fn raise(&self, priority: Priority) {
        self.0.send_if_modified(|current| {
            let rises = priority < *current;
            *current = priority.min(*current);
            rises
        });
    }

    /// Waits until it is more urgent than `than`, and says how urgent.
    pub(crate) async fn above(&self, than: Priority) -> Priority {
        *self.0.subscribe().wait_for(|now| *now < than).await.expect("invariant: the sender is ours")
    }
}

impl From<Priority> for Urgency {
    fn from(priority: Priority) -> Self {
        Urgency(Arc::new(watch::Sender::new(priority)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urgency_rises_and_never_falls() {
        let urgency = Urgency::from(Priority::Prefetch);
        urgency.clone().raise(Priority::Refresh);
        assert_eq!(urgency.above(Priority::Prefetch).await, Priority::Refresh);
        urgency.raise(Priority::Prefetch);
        assert_eq!(urgency.now(), Priority::Refresh);
        let waits = tokio::spawn({
            let urgency = urgency.clone();
            async move { urgency.above(Priority::Refresh).await }
        });
        urgency.raise(Priority::Interactive);
        assert_eq!(waits.await.expect("no panic"), Priority::Interactive);
    }
}

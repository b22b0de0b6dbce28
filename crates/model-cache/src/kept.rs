//! Target models that stay in memory until they are unloaded by name.

use std::collections::HashMap;

use inference::TargetModel;
use parking_lot::Mutex;

/// Who wants a target model to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptBy {
    /// The settings, at each start.
    Settings,
    /// A client, by name.
    Name,
}

/// The names. What is here is never evicted while it is in memory, however it came there; that a crash or a newer version
/// replaces it changes nothing about that.
#[derive(Default)]
pub(crate) struct KeptTargets(Mutex<HashMap<TargetModel, KeptBy>>);

impl KeptTargets {
    /// It stays from now on, for whoever said so first; `false` where somebody had said so before.
    pub(crate) fn keep(&self, target: &TargetModel, by: KeptBy) -> bool {
        let mut kept = self.0.lock();
        let is_new = !kept.contains_key(target);
        kept.entry(target.clone()).or_insert(by);
        is_new
    }

    /// It may leave again.
    pub(crate) fn release(&self, target: &TargetModel) {
        self.0.lock().remove(target);
    }

    /// Whether it stays.
    pub(crate) fn has(&self, target: &TargetModel) -> bool {
        self.0.lock().contains_key(target)
    }

    /// Whether a client made it stay.
    pub(crate) fn has_by_name(&self, target: &TargetModel) -> bool {
        self.0.lock().get(target) == Some(&KeptBy::Name)
    }
}

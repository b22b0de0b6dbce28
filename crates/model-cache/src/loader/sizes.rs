//! What the models of an archive took when they were loaded: better than an estimate the next time.

use inference::{Device, MemoryUsage};

/// By model, in the order of the load: the device that its groups went to which leave it open, and what it took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes(Vec<(Device, MemoryUsage)>);

impl Sizes {
    /// Notes the next model.
    pub(super) fn note(&mut self, home: Device, usage: MemoryUsage) {
        self.0.push((home, usage));
    }

    /// What a model took, and where.
    pub(super) fn of(&self, model: usize) -> Option<(Device, &MemoryUsage)> {
        self.0.get(model).map(|(home, usage)| (*home, usage))
    }
}

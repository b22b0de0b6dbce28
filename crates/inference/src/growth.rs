//! Models that run faster with more memory than they are loaded with, while they are used so much that it is worth that.

use std::any::Any;
use std::time::Instant;

use crate::{MemoryUsage, Result};

/// Memory that is held for a model; dropping it gives it back.
pub type MemoryGrant = Box<dyn Any + Send + Sync>;

/// What should become of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrowthAdvice {
    /// It is right as it is.
    Stay,
    /// It should have so much memory more.
    Grow(MemoryUsage),
    /// It is used too little for what it has beyond what it was loaded with.
    Shrink,
}

/// A loaded model that can grow and shrink while it serves.
pub trait Growth: Send + Sync {
    /// What its use says. Asked from time to time; does not block.
    fn advice(&self, now: Instant) -> GrowthAdvice;

    /// What it has beyond what it was loaded with.
    fn held(&self) -> MemoryUsage;

    /// Grows by what it has asked for, and keeps the grant for as long as it has the memory. Blocks. Returns whether that was
    /// of use: a model that runs no faster stays as it was, and lets go of the grant.
    ///
    /// # Errors
    /// As [`Backend::load`](crate::Backend::load); the model stays as it was.
    fn grow(&self, grant: MemoryGrant) -> Result<bool>;

    /// Goes back to what it was loaded with. Blocks until requests under way have let go of the rest.
    fn shrink(&self);
}

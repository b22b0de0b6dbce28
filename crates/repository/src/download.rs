//! How archives come from the store: who goes first.

mod priority;
mod queue;
mod turns;

pub use priority::{Priority, Urgency};
pub(crate) use turns::Turns;

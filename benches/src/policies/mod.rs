//! Eviction policies without a server: traces, and a replay through the model cache's own decisions.

pub mod generate;
pub mod replay;
pub mod trace;

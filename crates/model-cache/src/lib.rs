//! What is in memory: routing, residency, budgets, eviction, load and unload.
//!
//! The request path is [`ModelCache`]'s `infer` (in `cache`): route, pin or load, find, run. What decides is pure and
//! stands apart: `route`, `policy`, `eviction`, `protection`, `working_set`, `residency`, `placement`.

mod archive_load;
mod archives;
mod backends;
mod blocking;
mod cache;
mod churn;
mod clock;
mod config;
mod control;
mod cuda;
mod cuda_memory;
mod devices;
mod displaced;
pub mod eviction;
mod flight;
mod forecast;
mod growth;
mod interference;
mod journey;
mod kept;
mod loaded;
mod loader;
mod metrics;
mod missing_keys;
mod overrides;
mod placement;
pub mod policy;
mod prefetch;
mod problems;
mod protection;
mod refresh;
mod registered;
mod relocation;
mod repositories;
mod residency;
mod restart;
mod room;
mod room_signal;
mod route;
#[cfg(test)]
mod simulation;
mod statistics;
mod target_control;
mod target_load;
mod unasked;
mod working_set;

pub use archives::Archives;
pub use backends::Backends;
pub use cache::ModelCache;
pub use config::{
    AfterUnload, InitialModels, ModelCacheConfig, ModelControlMode, ReplaceWithoutRoom, RepositoryConfig,
};
pub use cuda_memory::CudaMemory;
pub use devices::{CudaInventory, DeviceInventory, Gpu};
pub use metrics::describe_metrics;

//! Runs requests on loaded models: a queue and instances for one model, steps in order for an ensemble.
//!
//! What decides (which requests form a batch, the ensemble's plan, what a request demands of it, which step may start) is pure and stands in files of
//! its own; what waits, runs and counts is in [`ScheduledModel`] and [`Ensemble`].

mod answer;
mod audience;
mod batcher;
mod config;
mod decoupled;
mod dynamic;
mod ensemble;
pub mod ensemble_plan;
mod execution;
mod executor;
mod first_response;
mod instances;
mod joint;
mod labels;
mod limits;
mod metric;
mod metric_options;
mod model;
mod queue;
mod refusal;
mod response_cache;
mod responses;
mod sequence;
mod spans;
mod tally;
mod together;
mod warmup;

pub use config::{SchedulerConfig, StreamConfig};
pub use ensemble::Ensemble;
pub use ensemble_plan::{EnsemblePlan, PlanProblem, PlannedStep};
pub use executor::Executor;
pub use labels::ModelLabels;
pub use limits::ResourceLimit;
pub use metric::{ModelMetrics, describe_metrics};
pub use metric_options::MetricOptions;
pub use model::ScheduledModel;
pub use response_cache::{CacheMetrics, CachedModel, ResponseCache};
pub use tally::Tally;
pub use warmup::{WarmupFiles, warm_up};

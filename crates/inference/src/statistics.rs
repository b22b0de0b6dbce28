//! What a model has done so far, as Triton's statistics extension tells it. Plain figures; whoever runs models counts them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::MemoryUsage;

/// How often something happened, and how long it took altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatisticDuration {
    /// How often.
    pub count: u64,
    /// The sum of all durations.
    pub total: Duration,
}

/// What became of requests, and where their time went.
///
/// `queue` counts every request that succeeded; the three parts of `compute` only those that the response cache did not
/// answer. A request that ran in a batch counts the whole time of the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InferStatistics {
    /// Requests that were answered, from arrival to answer.
    pub success: StatisticDuration,
    /// Requests that failed, from arrival to failure.
    pub fail: StatisticDuration,
    /// From arrival to the begin of the execution.
    pub queue: StatisticDuration,
    /// Preparing inputs.
    pub compute_input: StatisticDuration,
    /// Running the model.
    pub compute_infer: StatisticDuration,
    /// Handing out outputs.
    pub compute_output: StatisticDuration,
    /// Requests that the response cache answered: looking the answer up.
    pub cache_hit: StatisticDuration,
    /// Requests that it could not answer: looking for the answer, and putting the model's own into the cache.
    pub cache_miss: StatisticDuration,
}

/// Executions of one batch size. The three parts have the same count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStatistics {
    /// Rows in the batch; 1 where the model does not batch.
    pub batch_size: u64,
    /// Preparing inputs.
    pub compute_input: StatisticDuration,
    /// Running the model.
    pub compute_infer: StatisticDuration,
    /// Handing out outputs.
    pub compute_output: StatisticDuration,
}

/// What became of the responses of one place (the first, the second, …) among those to a request of a decoupled model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseStatistics {
    /// Running the model until it had the response.
    pub compute_infer: StatisticDuration,
    /// Handing out outputs.
    pub compute_output: StatisticDuration,
    /// Responses with outputs.
    pub success: StatisticDuration,
    /// Responses that were errors.
    pub fail: StatisticDuration,
    /// Responses without outputs, such as the one that only says that no more will come.
    pub empty_response: StatisticDuration,
    /// Responses that nobody waited for any more.
    pub cancel: StatisticDuration,
}

/// What one version of a model has done since it was first loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelStatistics {
    /// The model's name, as a client would use it.
    pub name: String,
    /// The version.
    pub version: u64,
    /// When a request last succeeded, in milliseconds since 1970; 0 for never.
    pub last_inference_ms: u64,
    /// Inferences: a request with a batch of 4 counts 4. Those that the response cache answered do not count.
    pub inference_count: u64,
    /// Batches that were run.
    pub execution_count: u64,
    /// By request.
    pub inference: InferStatistics,
    /// By batch size, ascending; only sizes that were run.
    pub batches: Vec<BatchStatistics>,
    /// By place among a request's responses, from 0; only for decoupled models.
    pub responses: BTreeMap<u64, ResponseStatistics>,
    /// What the model holds; nothing while it is not in memory.
    pub memory: MemoryUsage,
}

//! What bounds the model cache.

use std::num::NonZeroUsize;
use std::time::Duration;

use inference::MemoryUsage;
use scheduler::{MetricOptions, SchedulerConfig};

/// The model cache's bounds and intervals.
#[derive(Clone, Debug)]
pub struct ModelCacheConfig {
    /// Bytes of answers that the response cache may hold; `None` for no response cache.
    pub response_cache_bytes: Option<u64>,
    /// Bytes that loaded models may take, by device. A device that is not listed takes none.
    pub budget: MemoryUsage,
    /// Ordinals of the GPUs that models may be placed on.
    pub gpus: Vec<u32>,
    /// How long a store's answer about an archive on disk is trusted.
    pub store_check_interval: Duration,
    /// How long one download may take.
    pub download_timeout: Duration,
    /// How long loading an archive's models may take, once it is on disk.
    pub load_timeout: Duration,
    /// How long a load waits for pinned models to make room.
    pub room_timeout: Duration,
    /// How many archives are loaded at once.
    pub load_concurrency: NonZeroUsize,
    /// How many requests may wait for one archive.
    pub load_queue_size: usize,
    /// How many executions run at once.
    pub execution_concurrency: NonZeroUsize,
    /// Metrics that are kept only when asked for.
    pub metric_options: MetricOptions,
    /// How many model names metrics tell apart.
    pub metrics_model_limit: usize,
    /// Called after each unload, on a thread that may block: gives freed memory back to the system.
    pub after_unload: fn(),
    /// Queues and time limits of each model.
    pub scheduler: SchedulerConfig,
}

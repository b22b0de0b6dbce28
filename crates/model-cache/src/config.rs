//! What bounds the model cache.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use inference::MemoryUsage;
use repository::Background;
use scheduler::{MetricOptions, ResourceLimit, SchedulerConfig};

use crate::policy::EvictionPolicy;

/// Unpacked repositories, and who decides what of them is loaded.
#[derive(Clone, Debug, Default)]
pub struct RepositoryConfig {
    /// The repositories; each model is in one of them.
    pub folders: Vec<PathBuf>,
    /// Who decides.
    pub control: ModelControlMode,
    /// The server is ready only while none of their models has failed to load.
    pub strict_readiness: bool,
}

/// Who decides which models of unpacked repositories are loaded, as in Triton.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModelControlMode {
    /// All are loaded at start, and that is that.
    #[default]
    None,
    /// All are loaded, and their files are looked at so often: what comes, changes or goes is loaded or unloaded.
    Poll(Duration),
    /// Clients, by name; these are loaded at start.
    Explicit(InitialModels),
}

/// What is loaded at start where clients decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitialModels {
    /// Every model.
    All,
    /// These.
    Named(Vec<String>),
}

/// What becomes of an archive in memory whose new version does not fit beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplaceWithoutRoom {
    /// The old version serves on.
    #[default]
    Keep,
    /// The old version is unloaded first; requests wait meanwhile.
    Gap,
}

/// Gives memory that an unload has freed back to the system; blocks. Called in the background after each unload, before the memory
/// counts as free. Does nothing by default.
#[derive(Clone)]
pub struct AfterUnload(Arc<dyn Fn() + Send + Sync>);

impl AfterUnload {
    /// Calls this.
    pub fn new(give_back: impl Fn() + Send + Sync + 'static) -> Self {
        AfterUnload(Arc::new(give_back))
    }

    pub(crate) fn call(&self) {
        (self.0)();
    }
}

impl Default for AfterUnload {
    fn default() -> Self {
        AfterUnload::new(|| {})
    }
}

impl fmt::Debug for AfterUnload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AfterUnload")
    }
}

/// The model cache's bounds and intervals.
#[derive(Clone, Debug)]
pub struct ModelCacheConfig {
    /// Bytes of answers that the response cache may hold; `None` for no response cache.
    pub response_cache_bytes: Option<u64>,
    /// Bytes that loaded models may take, by device. A device that is not listed takes none.
    pub budget: MemoryUsage,
    /// Which archives leave memory first when others need the room.
    pub eviction_policy: EvictionPolicy,
    /// Ordinals of the GPUs that models may be placed on.
    pub gpus: Vec<u32>,
    /// How long a store's answer about an archive is trusted: for one on disk until it is loaded, for one in memory until it is
    /// asked again in the background. Zero: it is asked for every load, and not in the background.
    pub store_check_interval: Duration,
    /// How long a key is taken to be missing that the store did not have; 0 to ask the store for every request.
    pub missing_key_ttl: Duration,
    /// What becomes of an archive in memory whose new version does not fit beside it.
    pub replace_without_room: ReplaceWithoutRoom,
    /// How long one download may take.
    pub download_timeout: Duration,
    /// How long loading an archive's models may take, once it is on disk.
    pub load_timeout: Duration,
    /// How long a load waits for pinned models to make room.
    pub room_timeout: Duration,
    /// How many archives come from the store at once.
    pub download_concurrency: NonZeroUsize,
    /// How many archives are loaded at once.
    pub load_concurrency: NonZeroUsize,
    /// How many requests may wait for one archive.
    pub load_queue_size: usize,
    /// How many executions run at once.
    pub execution_concurrency: NonZeroUsize,
    /// Metrics that are kept only when asked for.
    pub metric_options: MetricOptions,
    /// How much there is of the resources that instances ask for; `None` where rates are not limited.
    pub rate_limits: Option<Vec<ResourceLimit>>,
    /// How many model names metrics tell apart.
    pub metrics_model_limit: usize,
    /// Unpacked repositories.
    pub repositories: RepositoryConfig,
    /// Where files are written that come with a request to load.
    pub scratch: PathBuf,
    /// Where models are loaded and unloaded.
    pub background: Background,
    /// What is done after each unload.
    pub after_unload: AfterUnload,
    /// Queues and time limits of each model.
    pub scheduler: SchedulerConfig,
}

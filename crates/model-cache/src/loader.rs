//! Turns a repository on disk into models in memory: prepare (check everything, decide where it goes and what it takes),
//! then load. Both block, and run on threads that carry no requests.

mod load;
mod prepare;
mod sizes;

use std::sync::Arc;
use std::time::Duration;

use inference::{MemoryUsage, ModelName};
use scheduler::{Executor, ModelLabels, ResponseCache, SchedulerConfig};

use crate::backends::Backends;
use crate::config::ModelCacheConfig;

pub(crate) use load::Loaded;
pub(crate) use sizes::Sizes;

/// What loading needs to know of the server.
pub(crate) struct Loader {
    backends: Backends,
    gpus: Vec<u32>,
    executor: Executor,
    load_timeout: Duration,
    scheduler: SchedulerConfig,
    labels: Arc<ModelLabels>,
    response_cache: Option<Arc<ResponseCache>>,
}

impl Loader {
    pub(crate) fn new(backends: Backends, labels: Arc<ModelLabels>, config: &ModelCacheConfig) -> Self {
        Loader {
            backends,
            gpus: config.gpus.clone(),
            executor: match &config.rate_limits {
                None => Executor::new(config.execution_concurrency),
                Some(limits) => Executor::with_rate_limits(config.execution_concurrency, limits.clone()),
            },
            load_timeout: config.load_timeout,
            scheduler: config.scheduler,
            labels,
            response_cache: config.response_cache_bytes.map(ResponseCache::new),
        }
    }
}

/// How metrics name a model: an archive's entry model by the archive, its other models as `archive/model`, and a start-up
/// repository's models by their own names.
pub(crate) fn metric_name(archive: Option<&str>, entry: Option<&ModelName>, model: &ModelName) -> String {
    match archive {
        None => model.to_string(),
        Some(archive) if entry == Some(model) => archive.to_owned(),
        Some(archive) => format!("{archive}/{model}"),
    }
}

/// The sum of several usages.
pub(crate) fn total<'a>(usages: impl IntoIterator<Item = &'a MemoryUsage>) -> MemoryUsage {
    let mut total = MemoryUsage::default();
    usages.into_iter().for_each(|usage| total.add_all(usage));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_name_models_by_their_archive() {
        let (entry, step): (ModelName, ModelName) = ("pipeline".into(), "tokenize".into());
        assert_eq!(metric_name(Some("t/a.tar.gz"), Some(&entry), &entry), "t/a.tar.gz");
        assert_eq!(metric_name(Some("t/a.tar.gz"), Some(&entry), &step), "t/a.tar.gz/tokenize");
        assert_eq!(metric_name(None, None, &step), "tokenize");
    }
}

//! The second half of a load: backends load their models, ensembles are wired to them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use inference::{Backend, Error, InferenceService, MemoryUsage, ModelInfo, ModelName, Placement, Result, TensorName};
use repository::RepositoryModel;
use scheduler::{CachedModel, Ensemble, EnsemblePlan, ModelMetrics, ScheduledModel};

use super::prepare::{Prepared, PreparedKind, PreparedModel, artifact};
use super::{Loader, metric_name};
use crate::loaded::{ServedModel, ServedModels};

/// Models that are ready, and what they really took.
pub(crate) struct Loaded {
    pub(crate) models: ServedModels,
    pub(crate) entry: Option<ModelName>,
    pub(crate) usage: MemoryUsage,
}

impl Loader {
    /// Loads every version of every model. `archive` names the archive in metrics; a start-up repository has none.
    ///
    /// # Errors
    /// The first model's that fails, with its name; what was loaded before it is unloaded again.
    pub(crate) fn load(&self, prepared: Prepared, archive: Option<&str>) -> Result<Loaded> {
        let mut loaded = Loaded { models: BTreeMap::new(), entry: prepared.entry, usage: MemoryUsage::default() };
        for model in prepared.models {
            let name = model.model.spec.name.clone();
            let label = metric_name(archive, loaded.entry.as_ref(), &name);
            let versions = self.load_model(model, &label, &mut loaded).map_err(|error| {
                let message = format!("load failed for model '{name}': {}", error.message());
                Error::new(error.kind(), message).with_source(error).with_model(&*name)
            })?;
            loaded.models.insert(name, versions);
        }
        Ok(loaded)
    }

    fn load_model(
        &self,
        prepared: PreparedModel,
        label: &str,
        loaded: &mut Loaded,
    ) -> Result<BTreeMap<u64, ServedModel>> {
        let PreparedModel { model, kind, .. } = prepared;
        let labels = model.read_labels()?;
        let mut versions = BTreeMap::new();
        for version in &model.versions {
            let info = info(&model, *version, labels.clone());
            let metrics = self.labels.metrics(label, *version, &model.spec.metric_tags);
            let of_cache = self.response_cache.as_ref().filter(|_| model.spec.response_cache);
            let of_cache = of_cache.map(|cache| (cache.clone(), metrics.of_cache()));
            let (tally, mut memory) = (metrics.tally().clone(), MemoryUsage::default());
            let service = match &kind {
                PreparedKind::Backend { backend, placement } => {
                    self.start_backend(&**backend, &model, info.clone(), placement, metrics, &mut memory)?
                }
                PreparedKind::Ensemble(plan) => {
                    let steps = steps(plan, &loaded.models)?;
                    Ensemble::new(info.clone(), EnsemblePlan::clone(plan), steps, self.scheduler, metrics)
                }
            };
            let service = match of_cache {
                Some((cache, metrics)) => CachedModel::new(info.clone(), service, cache, metrics),
                None => service,
            };
            loaded.usage.add_all(&memory);
            versions.insert(*version, ServedModel { info, service, tally, memory });
        }
        Ok(versions)
    }

    fn start_backend(
        &self,
        backend: &dyn Backend,
        model: &RepositoryModel,
        info: Arc<ModelInfo>,
        placement: &Placement,
        metrics: ModelMetrics,
        memory: &mut MemoryUsage,
    ) -> Result<Arc<dyn InferenceService>> {
        let mut artifact = artifact(model, info.version);
        artifact.spec = Arc::new(model.spec.with_sequence_tensors());
        let loaded = backend.load(&artifact, placement)?;
        *memory = loaded.memory.clone();
        Ok(ScheduledModel::new(info, loaded, self.executor.clone(), self.scheduler, metrics))
    }
}

fn info(model: &RepositoryModel, version: u64, labels: HashMap<TensorName, Vec<String>>) -> Arc<ModelInfo> {
    Arc::new(ModelInfo {
        spec: Arc::new(model.spec.clone()),
        version,
        versions: model.versions.clone(),
        config: model.encoded_config(),
        labels,
    })
}

/// The services of an ensemble's steps, in the plan's order.
fn steps(plan: &EnsemblePlan, models: &ServedModels) -> Result<Vec<Arc<dyn InferenceService>>> {
    let step = |model: &ModelName, version: Option<u64>| {
        let versions = models.get(model)?;
        let served = match version {
            Some(version) => versions.get(&version),
            None => versions.last_key_value().map(|(_, served)| served),
        };
        served.map(|served| served.service.clone())
    };
    let missing = |model: &ModelName| Error::internal(format!("composing model '{model}' is not loaded"));
    plan.steps()
        .iter()
        .map(|planned| step(&planned.model, planned.version).ok_or_else(|| missing(&planned.model)))
        .collect()
}

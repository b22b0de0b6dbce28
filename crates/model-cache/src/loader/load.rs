//! The second half of a load: backends load their models, ensembles are wired to them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use inference::{
    Backend, Device, Error, Growth, InferenceService, MemoryUsage, ModelInfo, ModelName, Result, TensorName,
};
use repository::RepositoryModel;
use scheduler::{CachedModel, Ensemble, EnsemblePlan, ModelMetrics, ScheduledModel, warm_up};

use super::prepare::{Prepared, PreparedKind, PreparedModel, artifact};
use super::{Loader, Sizes, metric_name};
use crate::loaded::{Elsewhere, ServedModel, ServedModels, find_version};
use crate::placement::Way;

/// Models that are ready, and what they really took.
pub(crate) struct Loaded {
    pub(crate) models: ServedModels,
    pub(crate) entry: Option<ModelName>,
    pub(crate) usage: MemoryUsage,
    /// The same by model.
    pub(crate) sizes: Sizes,
    /// Where else they could be.
    pub(crate) elsewhere: Elsewhere,
}

impl Loader {
    /// Loads every version of every model, each placed in the way that `ways` says. `archive` names the archive in metrics; a start-up repository has none.
    ///
    /// # Errors
    /// The first model's that fails, with its name; what was loaded before it is unloaded again.
    pub(crate) fn load(&self, prepared: Prepared, ways: &[usize], archive: Option<&str>) -> Result<Loaded> {
        let Prepared { models, entry, members } = prepared;
        let (usage, sizes) = (MemoryUsage::default(), Sizes::default());
        let elsewhere = elsewhere(&models, ways);
        let mut loaded = Loaded { models: BTreeMap::new(), entry, usage, sizes, elsewhere };
        for (model, way) in models.into_iter().zip(ways) {
            let name = model.model.spec.name.clone();
            let label = metric_name(archive, loaded.entry.as_ref(), &name);
            let versions = self.load_model(model, *way, &label, &members, &mut loaded).map_err(|error| {
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
        way: usize,
        label: &str,
        members: &ServedModels,
        loaded: &mut Loaded,
    ) -> Result<BTreeMap<u64, ServedModel>> {
        let PreparedModel { model, kind } = prepared;
        let labels = model.read_labels()?;
        let (mut versions, mut taken, mut home) = (BTreeMap::new(), MemoryUsage::default(), Device::Host);
        for version in &model.versions {
            let info = info(&model, *version, labels.clone());
            let started = Instant::now();
            let metrics = self.labels.metrics(label, *version, &model.spec);
            let of_cache = self.response_cache.as_ref().filter(|_| model.spec.response_cache);
            let of_cache = of_cache.map(|cache| (cache.clone(), metrics.of_cache()));
            let load_duration = metrics.load_duration();
            let (tally, mut memory, mut growth) = (metrics.tally().clone(), MemoryUsage::default(), None);
            let service = match &kind {
                PreparedKind::Backend { backend, ways } => {
                    let way = &ways[way].way;
                    home = way.home;
                    let started = self.start_backend(&**backend, &model, info.clone(), way, metrics)?;
                    (memory, growth) = (started.memory, started.growth);
                    started.service
                }
                PreparedKind::Ensemble(plan) => {
                    if !model.spec.warmup.is_empty() {
                        let name = &*model.spec.name;
                        tracing::warn!(
                            model = name,
                            "the model_warmup of an ensemble is passed over; its composing models can have one each"
                        );
                    }
                    let steps = steps(plan, &loaded.models, members)?;
                    Ensemble::new(info.clone(), EnsemblePlan::clone(plan), steps, self.scheduler, metrics)
                }
            };
            let service = match of_cache {
                Some((cache, metrics)) => CachedModel::new(info.clone(), service, cache, metrics),
                None => service,
            };
            load_duration.set(started.elapsed().as_secs_f64());
            taken.add_all(&memory);
            versions.insert(*version, ServedModel { info, service, tally, memory, growth });
        }
        loaded.usage.add_all(&taken);
        loaded.sizes.note(home, taken);
        Ok(versions)
    }

    fn start_backend(
        &self,
        backend: &dyn Backend,
        model: &RepositoryModel,
        info: Arc<ModelInfo>,
        way: &Way,
        metrics: ModelMetrics,
    ) -> Result<Started> {
        let spec = &info.spec;
        let executor = self.executor.for_model(&spec.name, &way.instances)?;
        let mut artifact = artifact(model, info.version);
        artifact.spec = Arc::new(model.spec.with_sequence_tensors());
        let until = Instant::now().checked_add(self.load_timeout);
        let mut loaded = backend.load(&artifact, &way.placement())?;
        if !info.spec.warmup.is_empty() {
            warm_up(&artifact.spec, &mut loaded, &model.read_warmup_files()?, until)?;
        }
        let memory = loaded.memory.clone();
        let growth = loaded.instances.iter().find_map(|instance| instance.growth());
        let service = ScheduledModel::new(info, loaded, executor, self.scheduler, metrics);
        Ok(Started { service, memory, growth })
    }
}

/// Where models could be that are placed in these ways.
fn elsewhere(models: &[PreparedModel], chosen: &[usize]) -> Elsewhere {
    let (mut elsewhere, mut must_stay) = (Elsewhere::default(), false);
    for (model, chosen) in models.iter().zip(chosen) {
        let PreparedKind::Backend { ways, .. } = &model.kind else { continue };
        let is_on_gpu = ways[*chosen].way.is_on_gpu();
        let could_be_elsewhere = ways.iter().any(|one| one.way.is_on_gpu() != is_on_gpu);
        match is_on_gpu {
            true if could_be_elsewhere => elsewhere.on_host = true,
            true => must_stay = true,
            false => elsewhere.on_gpu |= could_be_elsewhere,
        }
    }
    elsewhere.on_host &= !must_stay;
    elsewhere
}

/// A model that its backend has loaded.
struct Started {
    service: Arc<dyn InferenceService>,
    memory: MemoryUsage,
    growth: Option<Arc<dyn Growth>>,
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
fn steps(plan: &EnsemblePlan, models: &ServedModels, members: &ServedModels) -> Result<Vec<Arc<dyn InferenceService>>> {
    let step = |model: &ModelName, version: Option<u64>| {
        let versions = models.get(model).or_else(|| members.get(model))?;
        find_version(versions, version).map(|served| served.service.clone())
    };
    let missing = |model: &ModelName| Error::internal(format!("composing model '{model}' is not loaded"));
    plan.steps()
        .iter()
        .map(|planned| step(&planned.model, planned.version).ok_or_else(|| missing(&planned.model)))
        .collect()
}

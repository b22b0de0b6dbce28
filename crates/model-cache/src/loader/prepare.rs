//! The first half of a load: check everything that can be checked without loading, all problems at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use inference::{Backend, Device, Error, MemoryUsage, ModelArtifact, ModelName, ModelSpec, Result};
use repository::{Repository, RepositoryModel};
use scheduler::EnsemblePlan;
use scheduler::ensemble_plan::plan;

use super::sizes::Sizes;
use super::{Loader, total};
use crate::loaded::{ServedModels, find_version};
use crate::placement::{Demand, Need, Way, ways};
use crate::problems::Problems;

/// A repository whose models can be loaded, where they may go, and what they are expected to take there.
pub(crate) struct Prepared {
    /// The models, each after those that it is composed of.
    pub(crate) models: Vec<PreparedModel>,
    /// The model that a request reaches that names none.
    pub(crate) entry: Option<ModelName>,
    /// Models in memory that ensembles may be composed of besides those above.
    pub(super) members: ServedModels,
}

/// A model whose specification is complete.
pub(crate) struct PreparedModel {
    pub(crate) model: RepositoryModel,
    pub(crate) kind: PreparedKind,
}

/// What will answer for a model.
pub(crate) enum PreparedKind {
    /// A backend, in one of these ways.
    Backend { backend: Arc<dyn Backend>, ways: Vec<PreparedWay> },
    /// Its composing models.
    Ensemble(Box<EnsemblePlan>),
}

/// One way to place a model, and what it is expected to take then.
pub(crate) struct PreparedWay {
    pub(crate) way: Way,
    need: Need,
}

impl Prepared {
    /// What to make room for. `sizes` is what its models took the last time, where that is known.
    pub(crate) fn demand(&self, sizes: Option<&Sizes>) -> Demand {
        let known = |model: usize, way: &Way| {
            let usage = sizes?.of(model).find_map(|(home, usage)| way.translate(home, usage))?;
            Some(Need { usage, is_sure: true })
        };
        let needs = |(index, model): (usize, &PreparedModel)| match &model.kind {
            PreparedKind::Backend { ways, .. } => {
                ways.iter().map(|one| known(index, &one.way).unwrap_or_else(|| one.need.clone())).collect()
            }
            PreparedKind::Ensemble(_) => vec![Need { usage: MemoryUsage::default(), is_sure: true }],
        };
        Demand::new(self.models.iter().enumerate().map(needs).collect())
    }
}

/// The models by name, specifications complete.
type Completed = BTreeMap<ModelName, RepositoryModel>;

impl Loader {
    /// Completes specifications, plans ensembles, lists where instances may go and estimates memory. Ensembles are composed of the
    /// repository's own models, or else of `members`, which are in memory already.
    ///
    /// # Errors
    /// All problems of all models in one error, with file, line and column where a configuration is to blame.
    pub(crate) fn prepare(&self, repository: Repository, members: ServedModels) -> Result<Prepared> {
        let mut problems = Problems::default();
        let mut completed = Completed::new();
        for model in repository.models {
            if let Some(model) = problems.note(self.complete(model)) {
                completed.insert(model.spec.name.clone(), model);
            }
        }
        problems.into_result()?;
        settle_decoupled(&mut completed, &members);
        let mut problems = Problems::default();
        let mut kinds = BTreeMap::new();
        for (name, model) in &completed {
            if let Some(kind) = problems.note(self.kind(model, &completed, &members)) {
                kinds.insert(name.clone(), kind);
            }
        }
        problems.into_result()?;
        let order = composing_first(&completed)?;
        let models = order.into_iter().filter_map(|name| {
            let model = completed.remove(&name)?;
            let kind = kinds.remove(&name)?;
            Some(PreparedModel { model, kind })
        });
        Ok(Prepared { models: models.collect(), entry: repository.entry, members })
    }

    fn complete(&self, model: RepositoryModel) -> Result<RepositoryModel> {
        if model.spec.ensemble.is_some() {
            return Ok(model);
        }
        let backend = self.backends.find(&model.spec)?;
        let known = !model.spec.inputs.is_empty() && !model.spec.outputs.is_empty();
        let newest = model.versions.last().copied().filter(|_| !known);
        match newest {
            None => Ok(model),
            Some(version) => {
                let spec = backend.complete(&artifact(&model, version))?;
                Ok(model.completed(spec))
            }
        }
    }

    fn kind(&self, model: &RepositoryModel, all: &Completed, members: &ServedModels) -> Result<PreparedKind> {
        if model.spec.ensemble.is_some() {
            return Ok(PreparedKind::Ensemble(Box::new(plan_ensemble(model, all, members)?)));
        }
        let backend = self.backends.find(&model.spec)?.clone();
        let ways = ways(&model.spec.name, &model.spec.instance_groups, &self.gpus)?;
        let ways = estimate(&*backend, model, ways);
        Ok(PreparedKind::Backend { backend, ways })
    }
}

/// An ensemble is decoupled when one of its steps is, as in Triton, whatever its configuration says.
fn settle_decoupled(models: &mut Completed, in_memory: &ServedModels) {
    let ensembles: Vec<ModelName> =
        models.values().filter(|model| model.spec.ensemble.is_some()).map(|model| model.spec.name.clone()).collect();
    for name in ensembles {
        let decoupled = is_decoupled(&name, models, in_memory, &mut BTreeSet::new());
        if let Some(model) = models.get_mut(&name) {
            model.set_decoupled(decoupled);
        }
    }
}

fn is_decoupled<'m>(
    name: &'m str,
    models: &'m Completed,
    in_memory: &ServedModels,
    seen: &mut BTreeSet<&'m str>,
) -> bool {
    let Some(model) = models.get(name) else {
        // What is in memory is settled already.
        let served = in_memory.get(name).and_then(|versions| find_version(versions, None));
        return served.is_some_and(|served| served.info.spec.decoupled);
    };
    match model.spec.ensemble {
        _ if !seen.insert(name) => false,
        None => model.spec.decoupled,
        Some(_) => members(&model.spec).any(|member| is_decoupled(member, models, in_memory, seen)),
    }
}

/// One version of a model as its backend sees it.
pub(super) fn artifact(model: &RepositoryModel, version: u64) -> ModelArtifact {
    ModelArtifact {
        spec: Arc::new(model.spec.clone()),
        version,
        directory: model.directory.clone(),
        version_directory: model.version_directory(version),
        immutable: model.immutable,
    }
}

/// What a model is expected to take in each way; all GPUs are alike. A model that may be on the host goes nowhere else when its
/// backend would put nothing on a GPU.
fn estimate(backend: &dyn Backend, model: &RepositoryModel, ways: Vec<Way>) -> Vec<PreparedWay> {
    let may_be_on_host = ways.iter().any(|way| way.home == Device::Host);
    let mut estimated: Vec<(Device, MemoryUsage)> = Vec::new();
    let mut prepared = Vec::with_capacity(ways.len());
    for way in ways {
        let known = estimated.iter().find_map(|(home, usage)| way.translate(*home, usage));
        let expected = known.unwrap_or_else(|| expected(backend, model, &way));
        estimated.push((way.home, expected.clone()));
        let is_on_gpu = expected.iter().any(|(device, _)| device != Device::Host);
        if way.home == Device::Host || is_on_gpu || !may_be_on_host {
            let need = match model.spec.memory_bytes {
                Some(bytes) => Need { usage: stated(bytes, model.versions.len(), &way, &expected), is_sure: true },
                None => Need { usage: expected, is_sure: false },
            };
            prepared.push(PreparedWay { way, need });
        }
    }
    prepared
}

fn expected(backend: &dyn Backend, model: &RepositoryModel, way: &Way) -> MemoryUsage {
    let placement = way.placement();
    let of_version =
        |version: &u64| backend.estimate(&artifact(model, *version), model.file_bytes(*version), &placement);
    total(&model.versions.iter().map(of_version).collect::<Vec<_>>())
}

/// What the configuration says that each version takes on each device that it has instances on; elsewhere, what is expected.
/// All of it is on the host where its backend would put nothing on a GPU.
fn stated(bytes: u64, versions: usize, way: &Way, expected: &MemoryUsage) -> MemoryUsage {
    if expected.iter().all(|(device, _)| device == Device::Host) {
        return MemoryUsage::on(Device::Host, bytes.saturating_mul(versions as u64));
    }
    let mut devices: Vec<Device> = way.instances.iter().map(|(device, _)| *device).collect();
    devices.sort_unstable();
    devices.dedup();
    let mut usage = MemoryUsage::default();
    expected
        .iter()
        .filter(|(device, _)| !devices.contains(device))
        .for_each(|(device, bytes)| usage.add(device, bytes));
    devices.into_iter().for_each(|device| usage.add(device, bytes.saturating_mul(versions as u64)));
    usage
}

fn plan_ensemble(model: &RepositoryModel, all: &Completed, members: &ServedModels) -> Result<EnsemblePlan> {
    if model.spec.response_cache {
        check_cacheable(model, all, members)?;
    }
    let member = |name: &str, version: Option<u64>| -> Option<&ModelSpec> {
        match all.get(name) {
            Some(own) => version.is_none_or(|version| own.versions.contains(&version)).then_some(&own.spec),
            None => find_version(members.get(name)?, version).map(|member| &*member.info.spec),
        }
    };
    plan(&model.spec, member).map_err(|found| {
        let mut problems = Problems::default();
        for problem in found {
            problems.add(Error::invalid_argument(format!("{}: {}", model.locate(&problem.path), problem.message)));
        }
        let error = problems.into_result().expect_err("invariant: a plan fails with a problem");
        error.context(format!("ensemble '{}'", model.spec.name)).with_model(&*model.spec.name)
    })
}

/// Answers of an ensemble cannot be cached where one of its models, at any depth, answers equal requests differently.
fn check_cacheable(model: &RepositoryModel, all: &Completed, in_memory: &ServedModels) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut unseen: Vec<&ModelName> = members(&model.spec).collect();
    while let Some(name) = unseen.pop() {
        let own = all.get(name).map(|member| &member.spec);
        let spec = own.or_else(|| find_version(in_memory.get(name)?, None).map(|member| &*member.info.spec));
        let Some(spec) = spec.filter(|_| seen.insert(name)) else { continue };
        let differs = [
            (spec.sequence_batching.is_some(), "'sequence batching' scheduler"),
            (spec.decoupled, "'decoupled' transaction policy"),
        ];
        if let Some((_, what)) = differs.iter().find(|(differs, _)| *differs) {
            let name = &model.spec.name;
            return Err(Error::invalid_argument(format!(
                "{}: Response Cache does not currently support model {name} with {what} (of its composing model '{}'). Please \
                 disable the response cache.",
                model.locate("response_cache"),
                spec.name
            ))
            .with_model(&**name));
        }
        unseen.extend(members(spec));
    }
    Ok(())
}

/// Orders models so that an ensemble comes after everything that it is composed of.
///
/// # Errors
/// InvalidArgument when ensembles contain one another.
fn composing_first(models: &Completed) -> Result<Vec<ModelName>> {
    let mut order: Vec<ModelName> = Vec::with_capacity(models.len());
    let mut waiting: Vec<&ModelName> = models.keys().collect();
    let mut placed: BTreeSet<&ModelName> = BTreeSet::new();
    while !waiting.is_empty() {
        let is_there = |member: &ModelName| placed.contains(member) || !models.contains_key(member);
        let is_ready = |name: &&ModelName| members(&models[*name].spec).all(is_there);
        let (ready, blocked): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_ready);
        if ready.is_empty() {
            return Err(Error::invalid_argument(format!(
                "ensembles {blocked:?} contain one another; break the circle"
            )));
        }
        order.extend(ready.iter().map(|name| (*name).clone()));
        placed.extend(ready);
        waiting = blocked;
    }
    Ok(order)
}

fn members(spec: &ModelSpec) -> impl Iterator<Item = &ModelName> {
    spec.ensemble.iter().flat_map(|ensemble| &ensemble.steps).map(|step| &step.model)
}

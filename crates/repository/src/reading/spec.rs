//! Turns a parsed configuration into a [`ModelSpec`]. Pure: everything wrong is returned as a list of findings.

mod batching;
mod caching;
mod histograms;
mod instances;
mod parameters;
mod ragged;
mod sequences;
mod steps;
mod tensors;
mod warmup;

use inference::{DynamicBatching, ModelSpec, VersionPolicy};
use protocol::Positions;
use protocol::model_config::model_config::SchedulingChoice;
use protocol::model_config::model_version_policy::PolicyChoice;
use protocol::model_config::{ModelConfig, ModelVersionPolicy};

use super::platform::Platform;
use super::support::{self, Support};

/// The most versions of a model that a policy may name.
const MOST_VERSIONS: usize = 1000;

/// Something wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Which field, as [`Positions`] names it.
    pub(super) path: String,
    /// What was found and what was expected.
    pub(super) message: String,
}

/// What is wrong so far.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding { path: path.into(), message: message.into() });
    }
}

/// The fields that are not supported yet.
pub(super) fn refused_fields(config: &ModelConfig) -> Vec<Finding> {
    let refuse = |field: protocol::SetField| match support::of(&field)? {
        Support::Refused(why) => {
            let message =
                format!("`{}` is not supported yet ({why}); remove it to serve the model without", field.field);
            Some(Finding { path: field.path, message })
        }
        Support::Used | Support::PassedOver(_) => None,
    };
    protocol::set_fields(config).into_iter().filter_map(refuse).collect()
}

/// The fields that are passed over, and why that is no loss.
pub(super) fn passed_over_fields(config: &ModelConfig) -> Vec<(String, &'static str)> {
    let pass = |field: protocol::SetField| match support::of(&field)? {
        Support::PassedOver(why) => Some((field.path, why)),
        Support::Used | Support::Refused(_) => None,
    };
    protocol::set_fields(config).into_iter().filter_map(pass).collect()
}

/// The specification of a configuration whose name and platform are settled.
pub(super) fn of_config(
    name: &str,
    platform: &Platform,
    config: &ModelConfig,
    positions: &Positions,
) -> Result<ModelSpec, Vec<Finding>> {
    let mut findings = Findings::default();
    let max_batch_size = u32::try_from(config.max_batch_size).unwrap_or_else(|_| {
        findings.add("max_batch_size", format!("`max_batch_size` is {}; 0 means no batching", config.max_batch_size));
        0
    });
    let parameters = parameters::all(config);
    let spec = ModelSpec {
        platform: platform.platform.clone(),
        max_batch_size,
        inputs: tensors::inputs(config, &mut findings),
        outputs: tensors::outputs(config, &mut findings),
        version_policy: version_policy(config.version_policy.as_ref(), &mut findings),
        default_model_filename: file_name(config, &mut findings),
        instance_groups: instances::groups(config, &mut findings),
        warmup: warmup::samples(config, max_batch_size, &mut findings),
        infer_timeout: parameters::infer_timeout(&parameters, &mut findings),
        memory_bytes: parameters::memory_bytes(&parameters, &mut findings),
        weights: parameters::weights(&parameters, &mut findings),
        parameters,
        ensemble: match &config.scheduling_choice {
            Some(SchedulingChoice::EnsembleScheduling(ensemble)) => {
                Some(steps::ensemble(ensemble, positions, &mut findings))
            }
            _ => None,
        },
        decoupled: config.model_transaction_policy.as_ref().is_some_and(|policy| policy.decoupled),
        dynamic_batching: match &config.scheduling_choice {
            Some(SchedulingChoice::DynamicBatching(given)) => {
                Some(batching::dynamic(given, max_batch_size, &mut findings))
            }
            _ => None,
        },
        ragged: ragged::ragged(config, &mut findings),
        metric_tags: parameters::metric_tags(config, &mut findings),
        first_response_buckets: histograms::first_response_buckets(config, &mut findings),
        response_cache: caching::response_cache(name, config, &mut findings),
        sequence_batching: match &config.scheduling_choice {
            Some(SchedulingChoice::SequenceBatching(given)) => {
                Some(sequences::sequences(given, config, max_batch_size, &mut findings))
            }
            _ => None,
        },
        ..ModelSpec::new(name, platform.backend.as_str())
    };
    let adaptive = parameters::adaptive_batching(&spec.parameters, spec.dynamic_batching.is_some(), &mut findings);
    let batching = spec.dynamic_batching.map(|batching| DynamicBatching { adaptive, ..batching });
    let spec = ModelSpec { dynamic_batching: batching, ..spec };
    check_ensemble(&spec, &mut findings);
    if spec.decoupled && spec.sequence_batching.is_some() {
        let message = "a model with `sequence_batching` cannot be decoupled here yet; remove one of the two";
        findings.add("model_transaction_policy.decoupled", message);
    }
    if findings.0.is_empty() { Ok(spec) } else { Err(findings.0) }
}

fn check_ensemble(spec: &ModelSpec, findings: &mut Findings) {
    match (spec.backend == ModelSpec::ENSEMBLE, &spec.ensemble) {
        (true, None) => findings.add("platform", "an ensemble needs `ensemble_scheduling` with its steps"),
        (false, Some(_)) => {
            let message =
                format!("`ensemble_scheduling` needs `platform: \"ensemble\"`, but this is \"{}\"", spec.platform);
            findings.add("ensemble_scheduling", message);
        }
        _ => {}
    }
}

fn version_policy(policy: Option<&ModelVersionPolicy>, findings: &mut Findings) -> VersionPolicy {
    match policy.and_then(|policy| policy.policy_choice.as_ref()) {
        None => VersionPolicy::default(),
        Some(PolicyChoice::All(_)) => VersionPolicy::All,
        Some(PolicyChoice::Latest(latest)) => VersionPolicy::Latest(latest.num_versions.max(1)),
        Some(PolicyChoice::Specific(specific)) => {
            let path = "version_policy.specific";
            if specific.versions.is_empty() {
                findings.add(path, "`versions` is missing: name the versions to serve");
            }
            if specific.versions.len() > MOST_VERSIONS {
                let count = specific.versions.len();
                let message = format!("`versions` names {count} versions; at most {MOST_VERSIONS} are allowed");
                findings.add(format!("{path}.versions[{MOST_VERSIONS}]"), message);
                return VersionPolicy::default();
            }
            let mut versions = Vec::new();
            for (index, version) in specific.versions.iter().enumerate() {
                match u64::try_from(*version) {
                    Ok(version) if version > 0 => versions.push(version),
                    _ => findings
                        .add(format!("{path}.versions[{index}]"), format!("{version} is no version; they begin at 1")),
                }
            }
            VersionPolicy::Specific(versions)
        }
    }
}

fn file_name(config: &ModelConfig, findings: &mut Findings) -> Option<String> {
    let name = &config.default_model_filename;
    if name.is_empty() {
        return None;
    }
    if !stays_inside(name) {
        findings.add("default_model_filename", format!("\"{name}\" must be a path within the version directory"));
    }
    Some(name.clone())
}

/// Whether a relative path cannot leave the directory that it is relative to.
fn stays_inside(path: &str) -> bool {
    let mut components = std::path::Path::new(path).components();
    components.all(|component| matches!(component, std::path::Component::Normal(_) | std::path::Component::CurDir))
}

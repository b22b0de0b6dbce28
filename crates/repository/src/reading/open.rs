//! Reads one model: parses its configuration, settles its name, platform and versions, and makes its specification.

use std::path::Path;

use inference::{Error, ModelSpec, Result};
use protocol::model_config::model_config::SchedulingChoice;
use protocol::model_config::model_version_policy::{Latest, PolicyChoice};
use protocol::model_config::{ModelConfig, ModelVersionPolicy};
use protocol::{ParsedConfig, Positions};

use super::layout::ModelDirectory;
use super::model::{RepositoryModel, read_text};
use super::problems::Problems;
use super::spec::{self, Finding};
use super::{NameRule, initial_state, platform, versions};

/// The name of a model's configuration file.
pub(super) const CONFIG_FILE: &str = "config.pbtxt";
/// The file that makes a model of a directory without a configuration.
const ONNX_FILE: &str = "model.onnx";
/// How messages name a configuration that came with a request to load.
const GIVEN_CONFIG: &str = "the given config";
/// The largest configuration that is read; real ones have a few KiB.
const LARGEST_CONFIG: u64 = 4 << 20;

/// Whether a version directory holds an ONNX model.
pub(super) fn has_onnx_file(directory: &Path) -> bool {
    let versions = versions::present(directory).unwrap_or_default();
    versions.iter().any(|version| directory.join(version.to_string()).join(ONNX_FILE).is_file())
}

/// Reads one model of the repository at `root`; `given` is a configuration (as JSON) that counts instead of its own. Returns
/// `None` after adding to `problems`.
///
/// # Errors
/// Internal when a directory or file cannot be read.
pub(super) fn model(
    root: &Path,
    directory: &ModelDirectory,
    rule: NameRule,
    given: Option<&str>,
    problems: &mut Problems,
) -> Result<Option<RepositoryModel>> {
    let shown = Shown::new(root, &directory.path);
    let config_file = directory.path.join(CONFIG_FILE);
    let has_config = given.is_none() && config_file.is_file();
    if given.is_none() && !has_config && !has_onnx_file(&directory.path) {
        let message =
            format!("there is no {CONFIG_FILE}, and no version directory with an ONNX model ({ONNX_FILE}) either");
        problems.add(&shown.directory, None, &message);
        return Ok(None);
    }
    let (file, parsed) = match given {
        Some(text) => (GIVEN_CONFIG.to_owned(), parse_given(text, problems)),
        None if has_config => (shown.config_file.clone(), parse(&config_file, &shown.config_file, problems)?),
        None => (shown.directory, Some(ParsedConfig::default())),
    };
    let Some(ParsedConfig { mut config, positions }) = parsed else { return Ok(None) };
    let present = versions::present(&directory.path)?;
    let found = assemble(directory, rule, &mut config, &positions, &present);
    Ok(match found {
        Ok((spec, versions)) => {
            for (field, why) in spec::passed_over_fields(&config) {
                tracing::debug!(model = &*spec.name, field, why, "a field of the configuration is passed over");
            }
            let config_file = has_config.then_some(config_file);
            let directory = directory.path.clone();
            Some(RepositoryModel {
                spec,
                config,
                directory,
                versions,
                config_file,
                positions,
                immutable: false,
                shown: file,
            })
        }
        Err(findings) => {
            let mut findings: Vec<_> = findings.into_iter().map(|found| (positions.of(&found.path), found)).collect();
            findings.sort_by_key(|(position, _)| *position);
            findings.iter().for_each(|(position, found)| problems.add(&file, *position, &found.message));
            None
        }
    })
}

/// How messages name a model's directory and configuration: relative to the repository.
struct Shown {
    directory: String,
    config_file: String,
}

impl Shown {
    fn new(root: &Path, directory: &Path) -> Self {
        let relative = directory.strip_prefix(root).unwrap_or(directory).to_string_lossy().into_owned();
        let config_file =
            if relative.is_empty() { CONFIG_FILE.to_owned() } else { format!("{relative}/{CONFIG_FILE}") };
        let directory = if relative.is_empty() { ".".to_owned() } else { relative };
        Shown { directory, config_file }
    }
}

/// Parses a configuration; `None` after adding to `problems`. Where its text is wrong, fields that are not supported are
/// reported too.
fn parse(path: &Path, shown: &str, problems: &mut Problems) -> Result<Option<ParsedConfig>> {
    let text = match read_text(path, LARGEST_CONFIG) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            problems.add(shown, None, &error.to_string());
            return Ok(None);
        }
        Err(error) => return Err(Error::internal(format!("cannot read {shown}")).with_source(error)),
    };
    let (parsed, found) = protocol::read_model_config(&text);
    if found.is_empty() {
        return Ok(Some(parsed));
    }
    let mut found: Vec<_> = found.into_iter().map(|problem| (Some(problem.position), problem.message)).collect();
    let refused = spec::refused_fields(&parsed.config).into_iter();
    found.extend(refused.map(|finding| (parsed.positions.of(&finding.path), finding.message)));
    found.sort();
    found.iter().for_each(|(position, message)| problems.add(shown, *position, message));
    Ok(None)
}

/// Reads a configuration that came with a request to load; `None` after adding to `problems`.
fn parse_given(text: &str, problems: &mut Problems) -> Option<ParsedConfig> {
    if text.len() as u64 > LARGEST_CONFIG {
        problems.add(GIVEN_CONFIG, None, &format!("it is larger than {LARGEST_CONFIG} bytes"));
        return None;
    }
    match protocol::parse_model_config_json(text) {
        Ok(config) => Some(ParsedConfig { config, positions: Positions::default() }),
        Err(error) => {
            problems.add(GIVEN_CONFIG, None, &error);
            None
        }
    }
}

/// Settles name, platform and versions, fills them into the configuration, and makes the specification.
fn assemble(
    directory: &ModelDirectory,
    rule: NameRule,
    config: &mut ModelConfig,
    positions: &Positions,
    present: &[u64],
) -> Result<(ModelSpec, Vec<u64>), Vec<Finding>> {
    let mut findings = spec::refused_fields(config);
    let finding = |path: &str, message: String| Finding { path: path.to_owned(), message };
    if config.name.is_empty() {
        config.name.clone_from(&directory.name);
    } else if rule == NameRule::IsDirectory && config.name != directory.name {
        let message =
            format!("`name` is \"{}\", but the directory is \"{}\"; make them equal", config.name, directory.name);
        findings.push(finding("name", message));
    }
    let is_ensemble = matches!(config.scheduling_choice, Some(SchedulingChoice::EnsembleScheduling(_)));
    let files = file_names(&directory.path, present);
    let platform =
        platform::resolve((&config.backend, &config.platform), is_ensemble, &files).unwrap_or_else(|error| {
            findings.push(finding(error.0, error.1));
            // The rest is checked all the same.
            platform::unresolved(is_ensemble)
        });
    let mut made = spec::of_config(&config.name, &platform, config, positions);
    if let Ok(spec) = &mut made {
        findings.extend(initial_state::read(&directory.path, config, spec));
    }
    let versions = match &made {
        Ok(spec) => served(spec, present).map_err(|message| finding("version_policy.specific.versions", message)),
        Err(_) => Ok(Vec::new()),
    };
    findings.extend(versions.as_ref().err().cloned());
    findings.extend(made.as_ref().err().into_iter().flatten().cloned());
    let (Ok(spec), Ok(versions), true) = (made, versions, findings.is_empty()) else { return Err(findings) };
    config.backend = platform.backend;
    config.platform = platform.platform;
    let latest = PolicyChoice::Latest(Latest { num_versions: 1 });
    config.version_policy.get_or_insert(ModelVersionPolicy { policy_choice: Some(latest) });
    Ok((spec, versions))
}

/// The versions to serve of those that are there.
fn served(spec: &ModelSpec, present: &[u64]) -> Result<Vec<u64>, String> {
    let assumed = [1];
    let present = if present.is_empty() && platform::needs_no_file(&spec.backend) { &assumed[..] } else { present };
    if present.is_empty() {
        return Err("there is no version directory: put the model's file into `1/`".to_owned());
    }
    versions::select(&spec.version_policy, present)
        .map_err(|missing| format!("versions {missing:?} of `version_policy` are not there; found {present:?}"))
}

/// The names of everything directly within version directories.
fn file_names(directory: &Path, versions: &[u64]) -> Vec<String> {
    let listings = versions.iter().filter_map(|version| std::fs::read_dir(directory.join(version.to_string())).ok());
    listings.flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

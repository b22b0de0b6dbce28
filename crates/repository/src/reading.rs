//! Reads an unpacked model repository: finds its models, parses and checks their configurations, finds their versions.
//!
//! Everything that is wrong is reported at once, each problem as `file:line:column: text`.

mod initial_state;
mod layout;
mod model;
mod open;
mod platform;
mod problems;
mod spec;
mod support;
mod tree;
mod versions;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use inference::{ModelName, ModelSpec, Result};

pub use model::RepositoryModel;
use problems::Problems;

/// The models of an archive or of a folder.
#[derive(Clone, Debug)]
pub struct Repository {
    /// The model that a request to the archive reaches; `None` for a folder, whose models are called by name.
    pub entry: Option<ModelName>,
    /// Every model, sorted by directory.
    pub models: Vec<RepositoryModel>,
}

impl Repository {
    /// The same, kept by somebody who says whether its files stay as they are while its models are loaded.
    pub fn kept(mut self, immutable: bool) -> Self {
        self.models.iter_mut().for_each(|model| model.immutable = immutable);
        self
    }
}

/// Reads what an archive held. `name` is the archive's file stem: the name of a model whose `config.pbtxt` stands at the
/// root and gives none.
///
/// Layouts: a model's files at the root; model directories below the root; or either within one more folder. The entry
/// model is the only model, or else the only ensemble that no other ensemble uses.
///
/// # Errors
/// InvalidArgument with every problem found; for an unknown layout, with the tree and the layouts that would work.
/// Internal when a file cannot be read.
pub fn read_archive(root: &Path, name: &str) -> Result<Repository> {
    read_archive_as(root, name, None)
}

/// As [`read_archive`]; `config` is a configuration (as JSON) that counts instead of the entry model's own.
///
/// # Errors
/// As [`read_archive`].
pub fn read_archive_as(root: &Path, name: &str, config: Option<&str>) -> Result<Repository> {
    let directories = layout::archive(root, name)?;
    let only_model = directories.len() == 1;
    let mut problems = Problems::default();
    let mut models = Vec::new();
    for directory in &directories {
        let rule = if only_model { NameRule::MayDiffer } else { NameRule::IsDirectory };
        // Where there is one model it is the entry model, and its own configuration may even be missing.
        models.extend(open::model(root, directory, rule, config.filter(|_| only_model), &mut problems)?);
    }
    problems.into_result()?;
    let entry = entry(&models)?;
    if let (Some(config), false) = (config, only_model) {
        let place = models.iter().zip(&directories).position(|(model, _)| model.spec.name == entry);
        let place = place.expect("invariant: the entry is one of the models, and each directory gave one");
        models[place] = one_model(root, &directories[place], NameRule::IsDirectory, Some(config))?;
    }
    Ok(Repository { entry: Some(entry), models })
}

/// The name and directory of every model of an unpacked repository, sorted by name.
pub(crate) fn model_directories(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    Ok(layout::folder(root)?.into_iter().map(|model| (model.name, model.path)).collect())
}

/// Reads one model whose directory is `directory`, as part of the repository at `root`; `config` is a configuration (as
/// JSON) that counts instead of its own.
///
/// # Errors
/// InvalidArgument with every problem found. Internal when a file cannot be read.
pub fn read_model(root: &Path, directory: &Path, name: &str, config: Option<&str>) -> Result<RepositoryModel> {
    let directory = layout::ModelDirectory { path: directory.to_owned(), name: name.to_owned() };
    one_model(root, &directory, NameRule::IsDirectory, config)
}

/// Reads a model that consists of a configuration (as JSON) and of the files in `directory` alone. Its name is the
/// configuration's, or else `name`.
///
/// # Errors
/// As [`read_model`].
pub fn read_given_model(directory: &Path, name: &str, config: &str) -> Result<Repository> {
    let given = layout::ModelDirectory { path: directory.to_owned(), name: name.to_owned() };
    let model = one_model(directory, &given, NameRule::MayDiffer, Some(config))?;
    Ok(Repository { entry: Some(model.spec.name.clone()), models: vec![model] })
}

fn one_model(
    root: &Path,
    directory: &layout::ModelDirectory,
    rule: NameRule,
    config: Option<&str>,
) -> Result<RepositoryModel> {
    let mut problems = Problems::default();
    let model = open::model(root, directory, rule, config, &mut problems)?;
    problems.into_result()?;
    model.ok_or_else(|| inference::Error::internal(format!("'{}' was read without a result", directory.name)))
}

/// Reads a model repository as Triton has it: every subfolder is a model. Hidden folders and loose files are passed over.
///
/// # Errors
/// As [`read_archive`].
pub fn read_folder(root: &Path) -> Result<Repository> {
    let mut problems = Problems::default();
    let mut models = Vec::new();
    for directory in layout::folder(root)? {
        models.extend(open::model(root, &directory, NameRule::IsDirectory, None, &mut problems)?);
    }
    problems.into_result()?;
    Ok(Repository { entry: None, models })
}

/// How a configuration's `name` relates to its directory's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameRule {
    /// Nobody else can mean the model, so its own name counts.
    MayDiffer,
    /// Ensembles name models by their directories.
    IsDirectory,
}

/// Decides which model of an archive requests reach.
fn entry(models: &[RepositoryModel]) -> Result<ModelName> {
    if let [only] = models {
        return Ok(only.spec.name.clone());
    }
    let ensembles = || models.iter().filter(|model| model.spec.ensemble.is_some());
    let steps = |spec: &ModelSpec| spec.ensemble.iter().flat_map(|ensemble| ensemble.steps.clone()).collect::<Vec<_>>();
    let used: BTreeSet<ModelName> = ensembles().flat_map(|model| steps(&model.spec)).map(|step| step.model).collect();
    let outermost: Vec<_> = ensembles().filter(|model| !used.contains(&model.spec.name)).collect();
    if let [entry] = outermost[..] {
        return Ok(entry.spec.name.clone());
    }
    let list = |models: &mut dyn Iterator<Item = &RepositoryModel>| {
        models.map(|model| format!("`{}`", model.spec.name)).collect::<Vec<_>>().join(", ")
    };
    let why = match outermost.len() {
        0 if used.is_empty() => format!("none of them is an ensemble: {}", list(&mut models.iter())),
        0 => format!("every ensemble is a step of another one: {}", list(&mut ensembles())),
        _ => format!("several of them are ensembles: {}", list(&mut outermost.into_iter())),
    };
    Err(inference::Error::invalid_argument(format!(
        "it is not clear which of the archive's {} models answers requests, because {why}; pack one model, or one ensemble \
         with the models that it uses",
        models.len()
    )))
}

#[cfg(test)]
mod tests;

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
use std::path::Path;

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
    let directories = layout::archive(root, name)?;
    let only_model = directories.len() == 1;
    let mut problems = Problems::default();
    let mut models = Vec::new();
    for directory in &directories {
        let rule = if only_model { NameRule::MayDiffer } else { NameRule::IsDirectory };
        models.extend(open::model(root, directory, rule, &mut problems)?);
    }
    problems.into_result()?;
    let entry = entry(&models)?;
    Ok(Repository { entry: Some(entry), models })
}

/// Reads a model repository as Triton has it: every subfolder is a model. Hidden folders and loose files are passed over.
///
/// # Errors
/// As [`read_archive`].
pub fn read_folder(root: &Path) -> Result<Repository> {
    let mut problems = Problems::default();
    let mut models = Vec::new();
    for directory in layout::folder(root)? {
        models.extend(open::model(root, &directory, NameRule::IsDirectory, &mut problems)?);
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

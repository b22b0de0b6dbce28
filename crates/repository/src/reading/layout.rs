//! Finds the model directories of a repository.

use std::path::{Path, PathBuf};

use inference::{Error, Result};

use super::{open, tree, versions};

/// A model's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelDirectory {
    /// Where it is.
    pub(super) path: PathBuf,
    /// The model's name, as far as the layout tells it.
    pub(super) name: String,
}

/// The most model directories of one repository; past it every request to an archive would hold up others for long.
const MOST_MODELS: usize = 1000;

/// The layouts of archives that are understood, as error messages show them.
const LAYOUTS: &str = "  one model:                       config.pbtxt, 1/model.onnx
  one model in its directory:      <model>/config.pbtxt, <model>/1/model.onnx
  an ensemble and its models:      <ensemble>/config.pbtxt, <model>/config.pbtxt, <model>/1/model.onnx, …
  any of these in one more folder: <folder>/<model>/config.pbtxt, …
An ONNX model (<version>/model.onnx) needs no config.pbtxt.";

/// The model directories of an archive; never empty.
pub(super) fn archive(root: &Path, name: &str) -> Result<Vec<ModelDirectory>> {
    let below = subfolders(root)?;
    let models: Vec<_> = below.iter().filter(|directory| is_model(&directory.path)).cloned().collect();
    if is_model(root) {
        if models.iter().any(|model| model.path.join(open::CONFIG_FILE).is_file()) {
            return Err(unknown_layout(root, "both the root and folders below it are models"));
        }
        return Ok(vec![ModelDirectory { path: root.to_owned(), name: name.to_owned() }]);
    }
    if !models.is_empty() {
        return bounded(with_unfinished(below));
    }
    if let [folder] = &below[..] {
        let nested = subfolders(&folder.path)?;
        if nested.iter().any(|directory| is_model(&directory.path)) {
            return bounded(with_unfinished(nested));
        }
    }
    Err(unknown_layout(root, "no model was found"))
}

/// The model directories of a folder that holds one per model.
pub(super) fn folder(root: &Path) -> Result<Vec<ModelDirectory>> {
    if root.join(open::CONFIG_FILE).is_file() {
        return Err(Error::invalid_argument(format!(
            "{} is a model, not a model repository (it holds {}): name the folder that holds it",
            root.display(),
            open::CONFIG_FILE
        )));
    }
    subfolders(root)
}

/// Models, and folders that would be models if their configuration were not missing (which is then reported).
fn with_unfinished(directories: Vec<ModelDirectory>) -> Vec<ModelDirectory> {
    let has_version = |path: &Path| versions::present(path).is_ok_and(|versions| !versions.is_empty());
    directories.into_iter().filter(|directory| is_model(&directory.path) || has_version(&directory.path)).collect()
}

/// Refuses an archive of too many models before any of them is read.
fn bounded(models: Vec<ModelDirectory>) -> Result<Vec<ModelDirectory>> {
    if models.len() <= MOST_MODELS {
        return Ok(models);
    }
    Err(Error::invalid_argument(format!(
        "the archive holds {} models; at most {MOST_MODELS} are allowed",
        models.len()
    )))
}

fn is_model(directory: &Path) -> bool {
    directory.join(open::CONFIG_FILE).is_file() || open::has_onnx_file(directory)
}

/// Every folder but hidden ones and those that macOS's archiver adds, sorted.
fn subfolders(root: &Path) -> Result<Vec<ModelDirectory>> {
    let cannot_list = |error| Error::internal(format!("cannot list {}", root.display())).with_source(error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).map_err(cannot_list)? {
        let entry = entry.map_err(cannot_list)?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() && !name.starts_with('.') && name != "__MACOSX" {
            found.push(ModelDirectory { path, name });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn unknown_layout(root: &Path, why: &str) -> Error {
    let tree = tree::render(root);
    Error::invalid_argument(format!(
        "this is no layout of a model archive: {why}\nfound:\n{tree}\nlayouts that work:\n{LAYOUTS}"
    ))
}

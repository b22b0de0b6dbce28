//! Looks at the files of models, off the threads that carry requests.

use std::collections::BTreeSet;
use std::path::PathBuf;

use inference::{Error, ModelName, Result};
use repository::{Fingerprint, FoundModel, read_model, scan_folder};

use super::record::Origin;

/// The models of several repositories, and the repositories that could not be listed, with the reason.
pub(super) struct Scan {
    pub(super) found: Vec<FoundModel>,
    pub(super) failed: Vec<(PathBuf, Error)>,
}

/// Lists the repositories' models.
pub(super) async fn scan(folders: Vec<PathBuf>) -> Scan {
    let scanned = tokio::task::spawn_blocking(move || {
        let mut scan = Scan { found: Vec::new(), failed: Vec::new() };
        for folder in folders {
            match scan_folder(&folder) {
                Ok(found) => scan.found.extend(found),
                Err(error) => scan.failed.push((folder, error)),
            }
        }
        scan
    });
    scanned.await.expect("invariant: listing folders does not panic")
}

/// What a model's files say before they are loaded.
pub(super) struct Look {
    pub(super) name: ModelName,
    pub(super) seen: Fingerprint,
    /// What it is composed of, and its versions; `None` where nothing has changed, or where it cannot be read (its load
    /// will say why).
    pub(super) read: Option<(BTreeSet<ModelName>, Vec<u64>)>,
}

/// Looks at the files of models; those are read whose files are not in the state that is given with them.
pub(super) async fn look(models: Vec<(ModelName, Origin, Option<Fingerprint>)>) -> Vec<Look> {
    let looked = tokio::task::spawn_blocking(move || models.into_iter().map(look_at).collect());
    looked.await.expect("invariant: reading configurations does not panic")
}

fn look_at((name, origin, known): (ModelName, Origin, Option<Fingerprint>)) -> Look {
    // Before anything is read: a change meanwhile is seen by the next look.
    let seen = Fingerprint::of(&origin.directory);
    let read = (known != Some(seen)).then(|| members_and_versions(&name, &origin).unwrap_or_default());
    Look { name, seen, read }
}

fn members_and_versions(name: &str, origin: &Origin) -> Result<(BTreeSet<ModelName>, Vec<u64>)> {
    let model = read_model(&origin.root, &origin.directory, name, origin.config.as_deref())?;
    let steps = model.spec.ensemble.iter().flat_map(|ensemble| &ensemble.steps);
    Ok((steps.map(|step| step.model.clone()).collect(), model.versions))
}

//! Looks through unpacked repositories without reading a model: which models there are, and whether their files changed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use inference::Result;
use walkdir::WalkDir;

use crate::reading::model_directories;

/// The state of a model's files: equal as long as none was added, removed, resized or modified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

/// A model that a repository has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundModel {
    /// Its directory's name, and so its own.
    pub name: String,
    /// The repository.
    pub root: PathBuf,
    /// Its directory.
    pub directory: PathBuf,
}

/// The models of a repository as Triton has it, sorted by name. Hidden folders and loose files are passed over. Blocks.
///
/// # Errors
/// InvalidArgument when the folder is a model and no repository; Internal when it cannot be listed.
pub fn scan_folder(root: &Path) -> Result<Vec<FoundModel>> {
    let found = model_directories(root)?.into_iter();
    Ok(found.map(|(name, directory)| FoundModel { name, root: root.to_owned(), directory }).collect())
}

impl Fingerprint {
    /// Of everything in a model's directory: names, sizes and times of modification. Links count as what they lead to.
    /// What cannot be looked at counts as its name. Blocks.
    pub fn of(directory: &Path) -> Self {
        let mut hasher = DefaultHasher::new();
        for entry in WalkDir::new(directory).follow_links(true).sort_by_file_name() {
            let (path, metadata) = match &entry {
                Ok(entry) => (entry.path(), entry.metadata().ok()),
                Err(error) => (error.path().unwrap_or(directory), None),
            };
            path.strip_prefix(directory).unwrap_or(path).hash(&mut hasher);
            // A directory's own time changes with what is in it, which is looked at anyway.
            let file = metadata.filter(|metadata| metadata.is_file());
            let modified = file.as_ref().and_then(|file| file.modified().ok()?.duration_since(UNIX_EPOCH).ok());
            (file.map(|file| file.len()), modified).hash(&mut hasher);
        }
        Fingerprint(hasher.finish())
    }
}

/// As a version: some letters and digits.
impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn finds_models_and_passes_over_what_is_none() {
        let root = TempDir::new().expect("temporary");
        for name in ["b", "a", ".git"] {
            fs::create_dir(root.path().join(name)).expect("made");
        }
        fs::write(root.path().join("README.md"), "").expect("written");
        let names: Vec<_> = scan_folder(root.path()).expect("a folder").into_iter().map(|found| found.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(scan_folder(&root.path().join("nope")).is_err());
    }

    #[test]
    fn every_change_of_a_file_is_seen() {
        let root = TempDir::new().expect("temporary");
        let (config, weights) = (root.path().join("config.pbtxt"), root.path().join("1/model.onnx"));
        fs::create_dir(root.path().join("1")).expect("made");
        fs::write(&config, "a").expect("written");
        fs::write(&weights, "w").expect("written");
        let mut seen = vec![Fingerprint::of(root.path())];
        assert_eq!(Fingerprint::of(root.path()), seen[0]);
        let changes: [&dyn Fn() -> std::io::Result<()>; 5] = [
            &|| fs::write(&config, "ab"),
            &|| {
                fs::File::options().write(true).open(&weights)?.set_modified(SystemTime::now() - Duration::from_secs(9))
            },
            &|| fs::create_dir(root.path().join("2")),
            &|| fs::write(root.path().join("2/model.onnx"), "w"),
            &|| fs::remove_dir_all(root.path().join("1")),
        ];
        for change in changes {
            change().expect("changed");
            let now = Fingerprint::of(root.path());
            assert!(!seen.contains(&now), "change {} was not seen", seen.len());
            seen.push(now);
        }
    }
}

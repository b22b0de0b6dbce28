//! What a product was made from, as one hash: two equal keys mean that making it again would change nothing.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::packages::Package;

/// Raised when the way products are made changes in code rather than in the pins and scripts.
const FORMAT: &str = "1";

/// Collects inputs; the order matters.
#[derive(Clone)]
pub(super) struct Key(Sha256);

impl Key {
    pub(super) fn new() -> Self {
        Self(Sha256::new()).text(FORMAT)
    }

    /// Each part is preceded by its length, so that parts cannot run into one another.
    pub(super) fn bytes(mut self, part: &[u8]) -> Self {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    pub(super) fn text(self, part: &str) -> Self {
        self.bytes(part.as_bytes())
    }

    pub(super) fn package(self, package: &Package) -> Self {
        self.text(package.file).text(package.sha256)
    }

    /// A file's content.
    pub(super) fn file(self, path: &Path) -> Result<Self> {
        Ok(self.bytes(&fs::read(path).with_context(|| format!("cannot read {}", path.display()))?))
    }

    /// The names and contents of all files below `folder`.
    pub(super) fn tree(self, folder: &Path) -> Result<Self> {
        let mut entries = fs::read_dir(folder)
            .with_context(|| format!("cannot list {}", folder.display()))?
            .collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        entries.iter().try_fold(self, |key, entry| {
            let key = key.text(&entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() { key.tree(&entry.path()) } else { key.file(&entry.path()) }
        })
    }

    /// The key as text, as stamps hold it.
    pub(super) fn hex(&self) -> String {
        hex::encode(self.0.clone().finalize())
    }
}

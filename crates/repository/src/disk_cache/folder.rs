//! The disk cache's directory: `lock`, `staging/` for what is being unpacked, `entries/` for what is complete. An entry is
//! `archive.json` (what it is) beside `tree/` (what was in the archive).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use inference::{Error, ErrorKind, Result, TargetModel};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::policy::ArchiveKey;
use crate::archive::{Room, retry_when_full};
use crate::failure::{Failure, Outcome};

const METADATA_FILE: &str = "archive.json";
const TREE: &str = "tree";
/// The layout that this code writes. Entries of any other are removed at start.
const FORMAT: u32 = 1;

/// What `archive.json` says.
#[derive(Serialize, Deserialize)]
struct Metadata {
    format: u32,
    target: String,
    etag: String,
    bytes: u64,
    store: String,
}

/// An entry that a start found complete.
pub(super) struct Found {
    pub(super) key: ArchiveKey,
    pub(super) bytes: u64,
    pub(super) directory: Arc<str>,
    pub(super) used_at: SystemTime,
}

/// The directory of a cache.
pub(super) struct Folder {
    entries: PathBuf,
    staging: PathBuf,
}

impl Folder {
    /// Makes the directories and takes the lock, which lasts as long as the returned file is open.
    pub(super) fn open(root: &Path) -> Result<(Self, File)> {
        let folder = Folder { entries: root.join("entries"), staging: root.join("staging") };
        for directory in [&folder.entries, &folder.staging] {
            fs::create_dir_all(directory).map_err(|error| cannot("make", directory, error))?;
        }
        let path = root.join("lock");
        let options = || File::options().create(true).truncate(false).write(true).open(&path);
        let lock = options().map_err(|error| cannot("open", &path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok((folder, lock)),
            Err(fs::TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("disk cache '{}' is used by another server; give each its own --disk-cache", root.display()),
            )),
            Err(fs::TryLockError::Error(error)) => Err(cannot("lock", &path, error)),
        }
    }

    /// Empties staging, removes entries that are incomplete or from elsewhere, and returns the others, least recently
    /// used first. Of one target's versions the most recently used comes last.
    pub(super) fn recover(&self, store: &str) -> Result<Vec<Found>> {
        for name in names(&self.staging)? {
            remove(&self.staging.join(name)).map_err(|error| cannot("empty", &self.staging, error))?;
        }
        let mut found = Vec::new();
        for name in names(&self.entries)? {
            match self.read_entry(&name, store) {
                Ok(entry) => found.push(entry),
                Err(why) => {
                    let path = self.entries.join(&name);
                    tracing::warn!(entry = %path.display(), why, "removed from the disk cache");
                    remove(&path).map_err(|error| cannot("remove", &path, error))?;
                }
            }
        }
        found.sort_by_key(|entry| entry.used_at);
        Ok(found)
    }

    fn read_entry(&self, name: &str, store: &str) -> Result<Found, String> {
        let path = self.entries.join(name);
        let file = path.join(METADATA_FILE);
        let text = fs::read(&file).map_err(|error| format!("{METADATA_FILE}: {error}"))?;
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|error| format!("{METADATA_FILE}: {error}"))?;
        if metadata.format != FORMAT {
            return Err(format!("written in format {}, this server reads {FORMAT}", metadata.format));
        }
        if metadata.store != store {
            return Err(format!("it came from {}, this server's store is {store}", metadata.store));
        }
        if !path.join(TREE).is_dir() {
            return Err(format!("{TREE}/ is missing"));
        }
        let target = TargetModel::new(&metadata.target).map_err(|error| error.to_string())?;
        let used_at = fs::metadata(&file).and_then(|file| file.modified()).map_err(|error| error.to_string())?;
        let key = ArchiveKey { target, etag: metadata.etag.into() };
        Ok(Found { key, bytes: metadata.bytes, directory: name.into(), used_at })
    }

    /// The unpacked tree of an entry.
    pub(super) fn tree(&self, directory: &str) -> PathBuf {
        self.entries.join(directory).join(TREE)
    }

    /// Makes an entry vanish at once, then deletes its files.
    pub(super) fn delete(&self, directory: &str) {
        let (from, to) = (self.entries.join(directory), self.staging.join(directory));
        let deleted = fs::rename(&from, &to).and_then(|()| remove(&to));
        if let Err(error) = deleted {
            tracing::error!(entry = %from.display(), %error, "cannot delete from the disk cache; its bytes stay on disk");
        }
    }

    /// A new staging directory for an archive. Dropping it removes it with all that it holds.
    pub(super) fn stage(&self, key: &ArchiveKey, room: &mut dyn Room) -> Outcome<Staging> {
        let mut hash = Sha256::new();
        hash.update(key.target.as_str());
        hash.update([0]);
        hash.update(&*key.etag);
        let prefix = format!("{}-", &hex::encode(hash.finalize())[..16]);
        let make = || tempfile::Builder::new().prefix(&prefix).rand_bytes(12).tempdir_in(&self.staging);
        let directory =
            retry_when_full(room, make)?.map_err(|error| Failure::disk("make a staging directory", error))?;
        Ok(Staging { directory })
    }

    /// Writes the metadata, with `used_at` as the time of its first use, flushes everything to the disk, and moves the directory among the complete entries, whose
    /// name it returns. After a crash the entry is there with all its bytes, or not at all.
    pub(super) fn publish(
        &self,
        staging: Staging,
        key: &ArchiveKey,
        bytes: u64,
        store: &str,
        used_at: SystemTime,
        room: &mut dyn Room,
    ) -> Outcome<Arc<str>> {
        let metadata = Metadata {
            format: FORMAT,
            target: key.target.as_str().to_owned(),
            etag: key.etag.to_string(),
            bytes,
            store: store.to_owned(),
        };
        let text = serde_json::to_vec_pretty(&metadata).expect("invariant: strings and numbers become JSON");
        let path = staging.directory.path();
        retry_when_full(room, || fs::write(path.join(METADATA_FILE), &text))?
            .map_err(|error| Failure::disk(format_args!("write {METADATA_FILE}"), error))?;
        touch(&path.join(TREE), used_at);
        // One call for the whole file system: thousands of small files would each wait for the disk otherwise.
        retry_when_full(room, || rustix::fs::syncfs(&File::open(path)?).map_err(io::Error::from))?
            .map_err(|error| Failure::disk("flush an unpacked archive", error))?;
        let name: Arc<str> = staging.name().into();
        let entry = self.entries.join(&*name);
        retry_when_full(room, || fs::rename(path, &entry))?
            .map_err(|error| Failure::disk("move an unpacked archive into place", error))?;
        staging.keep();
        self.settle(&name, File::open(&self.entries).and_then(|entries| entries.sync_all()))?;
        Ok(name)
    }

    /// Keeps a new entry whose appearance is flushed; takes it away otherwise, as nobody would count its bytes.
    fn settle(&self, name: &str, flushed: io::Result<()>) -> Outcome<()> {
        flushed.map_err(|error| {
            self.delete(name);
            Failure::disk("flush the list of archives", error)
        })
    }
}

/// Notes when an entry was used; the next start reads the order from it. An entry that has left meanwhile needs no note.
pub(super) fn touch(tree: &Path, used_at: SystemTime) {
    let path = tree.with_file_name(METADATA_FILE);
    match File::options().write(true).open(&path).and_then(|file| file.set_modified(used_at)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "the disk cache's order of use may be lost at the next start");
        }
        _ => {}
    }
}

/// A directory below `staging/`; dropping it removes it.
pub(super) struct Staging {
    directory: TempDir,
}

impl Staging {
    /// Where the archive's content goes.
    pub(super) fn tree(&self) -> PathBuf {
        self.directory.path().join(TREE)
    }

    fn name(&self) -> String {
        let name = self.directory.path().file_name().expect("invariant: made with a name");
        name.to_string_lossy().into_owned()
    }

    /// It has been moved away.
    fn keep(self) {
        let _ = self.directory.keep();
    }
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    read().map_err(|error| cannot("list", directory, error))
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn cannot(what: &str, path: &Path, error: io::Error) -> Error {
    let message = format!("disk cache: cannot {what} '{}': {error}; check --disk-cache", path.display());
    Error::internal(message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its bytes would stay on disk, counted by nobody, until the next start.
    #[test]
    fn an_entry_whose_appearance_cannot_be_flushed_is_taken_away() {
        let root = tempfile::tempdir().expect("a folder");
        let (folder, _lock) = Folder::open(root.path()).expect("opens");
        for name in ["kept", "lost"] {
            fs::create_dir_all(folder.tree(name)).expect("an entry");
        }
        assert!(folder.settle("kept", Ok(())).is_ok());
        let failure = folder.settle("lost", Err(io::ErrorKind::StorageFull.into())).expect_err("not flushed");
        assert!(failure.error.message().contains("flush the list of archives"), "{failure}");
        assert_eq!(names(&folder.entries).expect("listed"), ["kept"]);
        assert_eq!(names(&folder.staging).expect("listed").len(), 0);
    }
}

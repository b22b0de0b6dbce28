//! `resident.json` beside the entries: which archives were in memory, for the next start. A hint, and no more: where it is
//! missing or makes no sense, nothing is lost but time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inference::TargetModel;
use serde::{Deserialize, Serialize};

use super::DiskCache;

const FILE: &str = "resident.json";
const NEW_FILE: &str = "resident.json.new";
/// Which of them are being loaded again right now.
const RESTORING_FILE: &str = "restoring.json";
/// The layout that this code writes; any other is passed over.
const FORMAT: u32 = 1;
/// Bytes that the file may have: more is none of ours.
const MAX_BYTES: u64 = 64 << 20;

/// An archive that was in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidentArchive {
    /// Which archive.
    pub target: TargetModel,
    /// The version that was loaded.
    pub etag: Arc<str>,
    /// What it took in memory, on all devices together.
    pub bytes: u64,
    /// A client had asked for it to stay.
    pub kept: bool,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    archives: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    target: String,
    etag: String,
    bytes: u64,
    kept: bool,
}

impl DiskCache {
    /// Notes what is in memory, the most valuable first, in place of what was noted before. After a crash at any moment
    /// there is one or the other. Blocks.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note_resident(&self, archives: &[ResidentArchive]) -> io::Result<()> {
        write(&self.config.directory, archives)
    }

    /// What was noted last by the server before, less what it did not survive loading again, which is forgotten. Blocks.
    pub fn noted_resident(&self) -> Vec<ResidentArchive> {
        let path = self.config.directory.join(FILE);
        let noted = read(&path).unwrap_or_else(|why| {
            tracing::warn!(file = %path.display(), why, "what was in memory before cannot be read; nothing is loaded at start for it");
            Vec::new()
        });
        survivable(&self.config.directory, noted)
    }

    /// Notes which archives are being loaded again, in place of those noted before. Should that end the server, the next
    /// one leaves them alone. Blocks.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note_restoring(&self, targets: &[TargetModel]) -> io::Result<()> {
        note_restoring(&self.config.directory, targets)
    }
}

fn note_restoring(directory: &Path, targets: &[TargetModel]) -> io::Result<()> {
    let path = directory.join(RESTORING_FILE);
    if targets.is_empty() {
        return remove(&path);
    }
    let names: Vec<&str> = targets.iter().map(TargetModel::as_str).collect();
    // Only the end of the process matters, not the end of the machine: nothing is flushed.
    fs::write(path, serde_json::to_vec(&names)?)
}

fn survivable(directory: &Path, mut noted: Vec<ResidentArchive>) -> Vec<ResidentArchive> {
    let path = directory.join(RESTORING_FILE);
    let Ok(text) = fs::read(&path) else { return noted };
    // A file that was being written names nobody.
    let fatal: Vec<String> = serde_json::from_slice(&text).unwrap_or_default();
    noted.retain(|archive| !fatal.iter().any(|target| target == archive.target.as_str()));
    tracing::warn!(?fatal, "the server ended while it loaded these again; they are not loaded at start any more");
    if let Err(error) = write(directory, &noted).and_then(|()| remove(&path)) {
        tracing::warn!(%error, "cannot note what is not to be loaded at start any more");
    }
    noted
}

fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn write(directory: &Path, archives: &[ResidentArchive]) -> io::Result<()> {
    let lines = archives.iter().map(|archive| Line {
        target: archive.target.as_str().to_owned(),
        etag: archive.etag.to_string(),
        bytes: archive.bytes,
        kept: archive.kept,
    });
    let text = serde_json::to_vec(&Record { format: FORMAT, archives: lines.collect() })?;
    let new: PathBuf = directory.join(NEW_FILE);
    let mut file = File::create(&new)?;
    file.write_all(&text)?;
    // Otherwise a power failure may leave the new name with no bytes behind it.
    file.sync_data()?;
    fs::rename(&new, directory.join(FILE))
}

fn read(path: &Path) -> Result<Vec<ResidentArchive>, String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
        Ok(file) if file.len() > MAX_BYTES => return Err(format!("it has {} bytes", file.len())),
        Ok(_) => {}
    }
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if record.format != FORMAT {
        return Err(format!("written in format {}, this server reads {FORMAT}", record.format));
    }
    let archives = record.archives.into_iter().map(|Line { target, etag, bytes, kept }| {
        let target = TargetModel::new(&target).map_err(|error| error.to_string())?;
        Ok(ResidentArchive { target, etag: etag.into(), bytes, kept })
    });
    archives.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(target: &str, kept: bool) -> ResidentArchive {
        let target = TargetModel::new(target).expect("valid");
        ResidentArchive { target, etag: "\"1-ä\"".into(), bytes: 7, kept }
    }

    #[test]
    fn what_was_noted_last_is_read_in_its_order() {
        let directory = tempfile::tempdir().expect("temporary");
        let path = directory.path().join(FILE);
        assert_eq!(read(&path), Ok(Vec::new()), "nothing was noted yet");
        for noted in [vec![archive("b/\"ü\".tar.gz", true), archive("a", false)], vec![]] {
            write(directory.path(), &noted).expect("writes");
            assert_eq!(read(&path), Ok(noted));
        }
        assert!(!directory.path().join(NEW_FILE).exists());
    }

    #[test]
    fn what_the_server_did_not_survive_is_forgotten() {
        let directory = tempfile::tempdir().expect("temporary");
        let (directory, noted) = (directory.path(), vec![archive("a", false), archive("b", true)]);
        write(directory, &noted).expect("writes");
        note_restoring(directory, &[noted[0].target.clone()]).expect("writes");
        note_restoring(directory, &[]).expect("removes");
        note_restoring(directory, &[]).expect("removes nothing");
        assert_eq!(survivable(directory, noted.clone()), noted, "both loads have ended");
        note_restoring(directory, &[noted[0].target.clone()]).expect("writes");
        assert_eq!(survivable(directory, noted.clone()), noted[1..]);
        assert_eq!(read(&directory.join(FILE)), Ok(noted[1..].to_vec()), "for good");
        assert!(!directory.join(RESTORING_FILE).exists());
        fs::write(directory.join(RESTORING_FILE), "[\"b").expect("writes");
        assert_eq!(survivable(directory, noted[1..].to_vec()), noted[1..]);
    }

    #[test]
    fn what_makes_no_sense_is_no_record() {
        let directory = tempfile::tempdir().expect("temporary");
        let path = directory.path().join(FILE);
        let wrong = [
            "",
            "{",
            "[]",
            r#"{"format":2,"archives":[]}"#,
            r#"{"format":1,"archives":[{"target":"","etag":"","bytes":1,"kept":false}]}"#,
            r#"{"format":1,"archives":[{"target":"a","etag":"","bytes":-1,"kept":false}]}"#,
        ];
        for text in wrong {
            fs::write(&path, text).expect("writes");
            assert!(read(&path).is_err(), "{text}");
        }
    }
}

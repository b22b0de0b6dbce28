//! Files of a model that came with a request to load, put where backends find them.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use bytes::Bytes;
use inference::{Error, Result};
use tempfile::TempDir;

use crate::request_threads::off_request_threads;

/// The directory of a model that was sent file by file. When this is dropped it is deleted, on a thread that may block.
#[derive(Debug)]
pub struct GivenFiles {
    // `Some` until dropped.
    folder: Option<TempDir>,
}

impl GivenFiles {
    /// Writes the files, by their path within the model's directory, into a new folder below `scratch`. Blocks.
    ///
    /// # Errors
    /// InvalidArgument for a path that is empty or leads outside, or that is both a file and a folder; Internal when a file
    /// cannot be written.
    pub fn write(scratch: &Path, files: &BTreeMap<String, Bytes>) -> Result<Self> {
        if let Some(path) = files.keys().find(|path| !is_plain(path)) {
            return Err(Error::invalid_argument(format!(
                "'file:{path}' does not name a file within the model's directory; write file:<version>/<file>"
            )));
        }
        let cannot_write = |error| {
            let place = scratch.display();
            Error::internal(format!("the given files cannot be written below {place}")).with_source(error)
        };
        let folder = std::fs::create_dir_all(scratch).and_then(|()| TempDir::with_prefix_in("model-", scratch));
        let given = GivenFiles { folder: Some(folder.map_err(cannot_write)?) };
        for (path, content) in files {
            if files.keys().any(|other| Path::new(other) != Path::new(path) && Path::new(other).starts_with(path)) {
                return Err(Error::invalid_argument(format!("'file:{path}' is a folder as well as a file")));
            }
            let place = given.directory().join(path);
            let parent = place.parent().unwrap_or(given.directory());
            std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&place, content)).map_err(cannot_write)?;
        }
        Ok(given)
    }

    /// The model's directory.
    pub fn directory(&self) -> &Path {
        self.folder.as_ref().expect("invariant: taken only when dropped").path()
    }
}

impl Drop for GivenFiles {
    fn drop(&mut self) {
        let folder = self.folder.take();
        // The last owner may also hold a lock that requests need.
        off_request_threads(move || drop(folder));
    }
}

fn is_plain(path: &str) -> bool {
    let mut components = Path::new(path).components();
    !path.is_empty() && !path.contains('\0') && components.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(scratch: &Path, paths: &[&str]) -> Result<GivenFiles> {
        let files = paths.iter().map(|path| ((*path).to_owned(), Bytes::from((*path).to_owned()))).collect();
        GivenFiles::write(scratch, &files)
    }

    #[test]
    fn files_are_where_they_belong_and_go_with_their_owner() {
        let scratch = TempDir::new().expect("temporary");
        let given = write(scratch.path(), &["1/model.onnx", "labels.txt"]).expect("plain paths");
        let directory = given.directory().to_owned();
        assert_eq!(std::fs::read(directory.join("1/model.onnx")).expect("written"), b"1/model.onnx");
        assert_eq!(std::fs::read(directory.join("labels.txt")).expect("written"), b"labels.txt");
        drop(given);
        assert!(!directory.exists());
    }

    #[test]
    fn files_are_not_deleted_on_threads_that_carry_requests() {
        let scratch = TempDir::new().expect("temporary");
        let given = write(scratch.path(), &["1/model.onnx"]).expect("plain paths");
        let directory = given.directory().to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
        let (release, busy) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || busy.recv());
        runtime.block_on(async { drop(given) });
        assert!(directory.exists(), "the one thread that may block is busy");
        drop(release);
        runtime.block_on(runtime.spawn_blocking(|| ())).expect("its turn comes after the files'");
        assert!(!directory.exists());
    }

    #[test]
    fn no_path_leads_outside() {
        let scratch = TempDir::new().expect("temporary");
        for bad in ["", "/etc/passwd", "../x", "1/../../x", ".", "a\0b"] {
            assert!(write(scratch.path(), &[bad]).is_err(), "{bad:?}");
        }
        assert!(write(scratch.path(), &["1", "1/model.onnx"]).is_err());
        assert_eq!(std::fs::read_dir(scratch.path()).expect("a folder").count(), 0);
    }
}

//! A model store in a local folder: an archive is a file below it, and a key's `/` are directories.

use std::fs::Metadata;
use std::io::{ErrorKind, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use inference::{BoxFuture, Error, Result, TargetModel};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::{ModelStore, ObjectBytes, ObjectInfo, Operation, count_request, replaced};

/// How much is read at a time.
const CHUNK_BYTES: usize = 512 * 1024;

/// Archives below a local folder. Symbolic links are followed: the folder is the operator's own.
///
/// The ETag is `size-mtime-inode`, so a file that was replaced or rewritten has another one. A change while the file is
/// being read is noticed after the last byte.
pub struct FolderStore {
    folder: PathBuf,
    location: String,
}

impl FolderStore {
    /// A store over an existing folder.
    ///
    /// # Errors
    /// NotFound when there is no such folder, InvalidArgument when it is a file.
    pub fn open(folder: &Path) -> Result<Self> {
        let shown = folder.display();
        let canonical = folder.canonicalize().map_err(|error| {
            Error::not_found(format!("model store: folder '{shown}' cannot be opened: {error}")).with_source(error)
        })?;
        if !canonical.is_dir() {
            return Err(Error::invalid_argument(format!("model store: '{shown}' is not a folder")));
        }
        let location = canonical.display().to_string();
        Ok(FolderStore { folder: canonical, location })
    }

    fn path(&self, target: &TargetModel) -> PathBuf {
        self.folder.join(target.as_str())
    }

    async fn stat(&self, target: &TargetModel) -> Result<ObjectInfo> {
        let path = self.path(target);
        let error = match tokio::fs::metadata(&path).await {
            Ok(metadata) => return self.info(target, &metadata),
            Err(error) => error,
        };
        // Without the folder itself nobody knows what is in it.
        match tokio::fs::metadata(&self.folder).await {
            Ok(folder) if folder.is_dir() => Err(self.failure(target, error)),
            _ => Err(self.unreadable(target, error)),
        }
    }

    fn info(&self, target: &TargetModel, metadata: &Metadata) -> Result<ObjectInfo> {
        if !metadata.is_file() {
            return Err(self.no_archive(target, "it is not a file"));
        }
        let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
        let etag = format!("{:x}-{seconds:x}.{nanoseconds:09}-{:x}", metadata.len(), metadata.ino());
        Ok(ObjectInfo { etag: etag.into(), size: metadata.len(), checksum: None })
    }

    async fn read(&self, target: &TargetModel, etag: &str, range: Range<u64>) -> Result<ObjectBytes> {
        // Looked at before it is opened: opening a pipe would wait for a writer.
        self.stat(target).await?;
        let mut file = File::open(self.path(target)).await.map_err(|error| self.failure(target, error))?;
        let metadata = file.metadata().await.map_err(|error| self.failure(target, error))?;
        let info = self.info(target, &metadata)?;
        if &*info.etag != etag {
            return Err(replaced(target, &self.location));
        }
        file.seek(SeekFrom::Start(range.start)).await.map_err(|error| self.failure(target, error))?;
        let reading = Reading {
            file,
            store: FolderStore { folder: self.folder.clone(), location: self.location.clone() },
            target: target.clone(),
            etag: Arc::clone(&info.etag),
            remaining: range.end - range.start,
        };
        Ok(reading.into_stream())
    }

    fn no_archive(&self, target: &TargetModel, why: &str) -> Error {
        Error::not_found(format!("no archive '{target}' in folder '{}': {why}", self.location))
            .with_model(target.as_str())
    }

    fn failure(&self, target: &TargetModel, error: std::io::Error) -> Error {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => self.missing(target),
            _ => self.unreadable(target, error),
        }
    }

    fn unreadable(&self, target: &TargetModel, error: std::io::Error) -> Error {
        Error::unavailable(format!(
            "cannot read '{target}' in folder '{}': {error}; check that folder, and the file's permissions",
            self.location
        ))
        .with_model(target.as_str())
        .with_source(error)
    }
}

impl ModelStore for FolderStore {
    fn location(&self) -> &str {
        &self.location
    }

    fn missing(&self, target: &TargetModel) -> Error {
        self.no_archive(target, "there is no such file")
    }

    fn head<'a>(&'a self, target: &'a TargetModel) -> BoxFuture<'a, Result<ObjectInfo>> {
        Box::pin(async move {
            let result = self.stat(target).await;
            count_request(Operation::Head, result.as_ref().err());
            result
        })
    }

    fn get<'a>(
        &'a self,
        target: &'a TargetModel,
        info: &'a ObjectInfo,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<ObjectBytes>> {
        Box::pin(async move {
            let result = self.read(target, &info.etag, range).await;
            count_request(Operation::Get, result.as_ref().err());
            result
        })
    }
}

/// A file on its way out.
struct Reading {
    file: File,
    store: FolderStore,
    target: TargetModel,
    etag: Arc<str>,
    remaining: u64,
}

impl Reading {
    fn into_stream(self) -> ObjectBytes {
        stream::try_unfold(self, |mut reading| async move {
            let chunk = reading.next_chunk().await?;
            Ok(chunk.map(|chunk| (chunk, reading)))
        })
        .boxed()
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let want = CHUNK_BYTES.min(usize::try_from(self.remaining).unwrap_or(CHUNK_BYTES));
        let mut chunk = vec![0; want];
        let read = self.file.read(&mut chunk).await.map_err(|error| self.store.failure(&self.target, error))?;
        chunk.truncate(read);
        self.remaining -= read as u64;
        if read == 0 || self.remaining == 0 {
            self.check_unchanged().await?;
        }
        Ok((read > 0).then(|| Bytes::from(chunk)))
    }

    /// The open file and what the key names now must both still be what was asked for.
    async fn check_unchanged(&self) -> Result<()> {
        let metadata = self.file.metadata().await.map_err(|error| self.store.failure(&self.target, error))?;
        let open = self.store.info(&self.target, &metadata)?;
        let named = self.store.stat(&self.target).await?;
        if open.etag == self.etag && named.etag == self.etag {
            return Ok(());
        }
        Err(replaced(&self.target, &self.store.location))
    }
}

//! A folder store and a disk cache in a temporary directory.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use inference::{Result, TargetModel};
use repository::{
    Backoff, CachedArchive, DiskCache, DiskCacheConfig, FolderStore, ModelStore, Priority, S3Config, S3Credentials,
    S3Store,
};
use tempfile::TempDir;
use test_util::s3::{ACCESS_KEY_ID, MemoryS3, SECRET_ACCESS_KEY};

pub(crate) struct Setup {
    directory: TempDir,
    pub(crate) store: Arc<dyn ModelStore>,
    pub(crate) cache: Arc<DiskCache>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// With a configuration that differs from the ordinary.
    pub(crate) fn with(change: impl FnOnce(&mut DiskCacheConfig)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let folder = directory.path().join("store");
        std::fs::create_dir(&folder).expect("a store");
        let store: Arc<dyn ModelStore> = Arc::new(FolderStore::open(&folder).expect("a folder store"));
        Self::over(directory, store, change)
    }

    /// Over a bucket.
    pub(crate) async fn over_s3(server: &MemoryS3, change: impl FnOnce(&mut DiskCacheConfig)) -> Self {
        let store = S3Store::connect(s3_config(server.endpoint(), "")).await;
        Self::over(tempfile::tempdir().expect("a temporary directory"), Arc::new(store), change)
    }

    fn over(directory: TempDir, store: Arc<dyn ModelStore>, change: impl FnOnce(&mut DiskCacheConfig)) -> Self {
        let mut config = DiskCacheConfig::new(directory.path().join("cache"), 1 << 30);
        config.refusal_backoff = Backoff { initial: Duration::from_secs(60), maximum: Duration::from_secs(60) };
        change(&mut config);
        let cache = DiskCache::open(config, store.location()).expect("a disk cache");
        Setup { directory, store, cache }
    }

    /// Closes the cache and opens it again, as a restart does.
    pub(crate) fn reopen(self, capacity: u64) -> Self {
        let Setup { directory, store, cache } = self;
        drop(cache);
        let config = DiskCacheConfig::new(directory.path().join("cache"), capacity);
        let cache = DiskCache::open(config, store.location()).expect("a disk cache");
        Setup { directory, store, cache }
    }

    pub(crate) fn cache_directory(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    pub(crate) fn put(&self, key: &str, archive: &[u8]) {
        let path = self.directory.path().join("store").join(key);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        // By rename, so that the inode and with it the ETag changes.
        let temporary = self.directory.path().join("upload");
        std::fs::write(&temporary, archive).and_then(|()| std::fs::rename(&temporary, path)).expect("an archive");
    }

    pub(crate) async fn fetch(&self, key: &str) -> Result<CachedArchive> {
        let target = target(key);
        let info = self.store.head(&target).await?;
        self.cache.fetch(&self.store, &target, &info, &Priority::Interactive.into()).await.map(|(archive, _)| archive)
    }

    /// What lies below `staging/` and `entries/`.
    pub(crate) fn on_disk(&self, part: &str) -> Vec<PathBuf> {
        let read = std::fs::read_dir(self.cache_directory().join(part)).expect("a directory");
        read.map(|entry| entry.expect("an entry").path()).collect()
    }
}

pub(crate) fn target(key: &str) -> TargetModel {
    TargetModel::new(key).expect("a valid key")
}

pub(crate) fn s3_config(endpoint: &str, prefix: &str) -> S3Config {
    S3Config {
        endpoint: Some(endpoint.to_owned()),
        path_style: true,
        region: Some("us-east-1".to_owned()),
        credentials: S3Credentials::Keys {
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: SECRET_ACCESS_KEY.to_owned(),
        },
        max_attempts: 1,
        ..S3Config::new(MemoryS3::BUCKET, prefix)
    }
}

/// A file's text in an unpacked tree.
pub(crate) fn text(root: &Path, file: &str) -> String {
    std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

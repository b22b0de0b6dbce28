//! Model stores of every kind behind one trait, so that a test can run against each.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use test_util::s3::{ACCESS_KEY_ID, FolderS3, MemoryS3, SECRET_ACCESS_KEY};

use crate::Launch;

/// The prefix within the bucket that the S3 stores use.
const PREFIX: &str = "team/models";

/// A place for archives.
pub trait Store {
    /// Puts or replaces an archive.
    fn put(&self, target: &str, archive: &[u8]);
    /// How to start a server that takes its models from here.
    fn launch(&self) -> Launch;
    /// Words that an error about a missing archive must hold besides its key.
    fn place(&self) -> Vec<String>;
}

/// A folder.
pub struct FolderStore(TempDir);

impl FolderStore {
    /// An empty one.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        FolderStore(TempDir::new().expect("a temporary folder"))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}

impl Store for FolderStore {
    fn put(&self, target: &str, archive: &[u8]) {
        write(self.0.path().join(target), archive);
    }

    fn launch(&self) -> Launch {
        Launch::folder(self.0.path())
    }

    fn place(&self) -> Vec<String> {
        vec![self.0.path().display().to_string()]
    }
}

/// An S3 server in memory that checks signatures and counts requests.
pub struct S3Store {
    /// The server.
    pub server: MemoryS3,
}

impl S3Store {
    /// An empty one.
    pub async fn start() -> Self {
        S3Store { server: MemoryS3::start().await }
    }

    /// How to start a server that reaches this store through another endpoint.
    pub fn launch_through(&self, endpoint: &str) -> Launch {
        Launch::s3(endpoint, &format!("{}/{PREFIX}", MemoryS3::BUCKET), ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    }

    /// How often an archive was downloaded, or its download begun.
    pub fn gets(&self, target: &str) -> u64 {
        self.server.gets(&format!("{PREFIX}/{target}"))
    }

    /// How often the store was asked about an archive.
    pub fn heads(&self, target: &str) -> u64 {
        self.server.heads(&format!("{PREFIX}/{target}"))
    }

    /// The store as `--model-store` has it.
    pub fn url() -> String {
        format!("s3://{}/{PREFIX}", MemoryS3::BUCKET)
    }

    /// The object's key.
    pub fn key(target: &str) -> String {
        format!("{PREFIX}/{target}")
    }
}

impl Store for S3Store {
    fn put(&self, target: &str, archive: &[u8]) {
        self.server.put(&Self::key(target), archive.to_vec());
    }

    fn launch(&self) -> Launch {
        self.launch_through(self.server.endpoint())
    }

    fn place(&self) -> Vec<String> {
        vec![MemoryS3::BUCKET.to_owned(), PREFIX.to_owned()]
    }
}

/// `s3s-fs`: somebody else's S3 server, over a folder.
pub struct SignedFolderStore {
    root: TempDir,
    server: FolderS3,
}

impl SignedFolderStore {
    /// An empty one.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    pub async fn start() -> Self {
        let root = TempDir::new().expect("a temporary folder");
        fs::create_dir(root.path().join(MemoryS3::BUCKET)).expect("a folder in it");
        let server = FolderS3::start(root.path()).await;
        SignedFolderStore { root, server }
    }
}

impl Store for SignedFolderStore {
    fn put(&self, target: &str, archive: &[u8]) {
        write(self.root.path().join(MemoryS3::BUCKET).join(PREFIX).join(target), archive);
    }

    fn launch(&self) -> Launch {
        let place = format!("{}/{PREFIX}", MemoryS3::BUCKET);
        Launch::s3(self.server.endpoint(), &place, ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    }

    fn place(&self) -> Vec<String> {
        vec![MemoryS3::BUCKET.to_owned(), PREFIX.to_owned()]
    }
}

fn write(path: PathBuf, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder can be made");
    fs::write(path, content).expect("a file can be written");
}

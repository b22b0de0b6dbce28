//! S3 servers for tests, over real sockets: one in memory with conditional requests, checksums and counters, and `s3s-fs`
//! over a folder. Both check signatures.

mod memory;

use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

pub use memory::{MemoryS3, ObjectChecksum};

/// The access key that the servers know.
pub const ACCESS_KEY_ID: &str = "AKIAPANOPLYTEST";
/// The secret that goes with it.
pub const SECRET_ACCESS_KEY: &str = "a-secret-that-is-no-secret";

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Requests must be signed with [`ACCESS_KEY_ID`] and [`SECRET_ACCESS_KEY`].
    Signed,
    /// Requests must not be signed.
    Anonymous,
}

/// `s3s-fs` over a folder, whose subdirectories are the buckets.
pub struct FolderS3 {
    server: Server,
}

impl FolderS3 {
    /// Serves `root` on a free port until dropped.
    pub async fn start(root: &Path) -> Self {
        let files = s3s_fs::FileSystem::new(root).expect("the folder of an S3 server");
        FolderS3 { server: Server::start(build(files, Access::Signed)).await }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.server.endpoint
    }
}

fn build(s3: impl s3s::S3, access: Access) -> S3Service {
    let mut builder = S3ServiceBuilder::new(s3);
    if access == Access::Signed {
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    }
    builder.build()
}

/// A listening server; dropping it closes every connection.
struct Server {
    endpoint: String,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(service: S3Service) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket"));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                connections.spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    // How a connection ends is the client's business.
                    let _ = builder.serve_connection(TokioIo::new(socket), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Server { endpoint, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

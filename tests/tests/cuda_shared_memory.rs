//! Memory of GPUs that clients share, through the real binary and its CUDA calls. There is no GPU: the driver that the server
//! loads is one of the tests, which ends the process when it is misused.

use std::path::Path;
use std::process::Command;

use e2e::{FolderStore, Server, Store, echo, python};
use tempfile::TempDir;

/// Builds the driver into a folder.
fn build_driver(folder: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("driver/libcuda.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]);
    let status = compiler.arg(folder.join("libcuda.so")).arg(source).arg("-lrt").status().expect("a C compiler");
    assert!(status.success(), "{status}");
}

async fn run(protocol: &str, address: fn(&Server) -> String) {
    let folder = TempDir::new().expect("a temporary folder");
    build_driver(folder.path());
    let calls = folder.path().join("calls");
    let store = FolderStore::new();
    store.put("echo.tar.gz", &echo());
    let launch = store.launch().flag("--allow-client-shm=true");
    let launch = launch.variable("LD_LIBRARY_PATH", &folder.path().display().to_string());
    let server = launch.variable("FAKE_CUDA_LOG", &calls.display().to_string()).start().await;
    let output = python("cuda_shared_memory_client.py", &[protocol, &address(&server)]).await;
    assert_eq!(output.trim_end().lines().last(), Some("all right"), "{output}");
    let calls = std::fs::read_to_string(calls).expect("the driver was called");
    let count = |call: &str| calls.lines().filter(|line| *line == call).count();
    // Two regions, and one that turned out to be too small.
    assert_eq!((count("open"), count("close")), (3, 3), "{calls}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_shares_memory_of_gpus_over_http() {
    run("http", Server::address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_shares_memory_of_gpus_over_grpc() {
    run("grpc", Server::grpc_address).await;
}

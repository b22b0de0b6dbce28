//! Memory of GPUs that clients share, through the real binary and its CUDA calls. There is no GPU: the driver that the server
//! loads is one of the tests, which ends the process when it is misused.

use e2e::{Driver, FolderStore, Server, Store, echo, python};

async fn run(protocol: &str, address: fn(&Server) -> String) {
    let driver = Driver::build();
    let store = FolderStore::new();
    store.put("echo.tar.gz", &echo());
    let server = driver.under(store.launch().flag("--allow-client-shm=true")).start().await;
    let output = python("cuda_shared_memory_client.py", &[protocol, &address(&server)]).await;
    assert_eq!(output.trim_end().lines().last(), Some("all right"), "{output}");
    let calls = driver.calls();
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

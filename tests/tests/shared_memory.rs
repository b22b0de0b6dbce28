//! Tensors in memory that clients share with the server, with the clients that users have.

use e2e::{Config, FolderStore, Server, Store, echo, python};
use test_util::archive::ArchiveBuilder;

async fn serve(allowed: bool) -> (FolderStore, Server) {
    let store = FolderStore::new();
    store.put("echo.tar.gz", &echo());
    let words = Config::new("words", "identity").input("X", "STRING", "-1").output("Y", "STRING", "-1");
    store.put("words.tar.gz", &ArchiveBuilder::new().file("config.pbtxt", words.text()).gzip());
    let launch = store.launch();
    let launch = if allowed { launch.flag("--allow-client-shm=true") } else { launch };
    let server = launch.start().await;
    (store, server)
}

async fn run(protocol: &str, address: fn(&Server) -> String) {
    let (_store, server) = serve(true).await;
    let output = python("shared_memory_client.py", &[protocol, &address(&server)]).await;
    assert_eq!(output.trim_end().lines().last(), Some("all right"), "{output}");
    let copied = |reason| ("reason", reason);
    let metrics = server.metrics().await;
    // 600,000 bytes went in twice, and came out once.
    assert!(metrics.sum("panoply_tensor_copied_bytes_total", &[copied("shared_memory_in")]) >= 1_200_000.0);
    assert!(metrics.sum("panoply_tensor_copied_bytes_total", &[copied("shared_memory_out")]) >= 600_000.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_shares_memory_over_http() {
    run("http", Server::address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_shares_memory_over_grpc() {
    run("grpc", Server::grpc_address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_off_unless_it_is_allowed() {
    let (_store, server) = serve(false).await;
    let answer = server.get("/v2/systemsharedmemory/status").await;
    assert_eq!(answer.status, 501, "{answer:?}");
    let in_region = serde_json::json!({"inputs": [{"name": "X", "shape": [1], "datatype": "FP32",
        "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 4}}]});
    let answer = server.invoke("echo.tar.gz", &in_region).await;
    assert_eq!(answer.status, 501, "{answer:?}");
    crate::assert_has(&answer.text(), &["--allow-client-shm", "input 'X'"]);
    server.stop().await;
}

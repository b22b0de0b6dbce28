//! The clients that users have, unmodified: boto3's `sagemaker-runtime`, `tritonclient.http` and
//! `tritonclient.grpc`.

use std::fs;
use std::path::PathBuf;

use e2e::{Config, FolderStore, Server, Store, echo, onnx_archive, prepared_model, python};
use test_util::archive::ArchiveBuilder;

/// The demo archives, one for plumbing, one that fails on demand, one that is too large.
async fn serve() -> (FolderStore, Server) {
    let store = FolderStore::new();
    for name in ["minilm.tar.gz", "mobilenet.tar.gz", "profanity.tar.gz"] {
        let archive: PathBuf = test_util::artifacts().join("demo-store").join(name);
        store.put(name, &fs::read(archive).expect("setup has made the demo archives"));
    }
    store.put("team/echo.tar.gz", &echo());
    store.put("reshape.tar.gz", &onnx_archive("reshape", &prepared_model("reshape")));
    let huge = Config::new("huge", "identity").input("X", "FP32", "-1").output("Y", "FP32", "-1");
    let huge = huge.parameter("memory_bytes", "99000000000");
    let repeat = "backend: \"repeat\" model_transaction_policy { decoupled: true }\n";
    let impatient = format!("{repeat} parameters {{ key: \"infer_timeout\" value {{ string_value: \"200ms\" }} }}");
    for (name, config) in [("repeat", repeat), ("impatient", impatient.as_str())] {
        store.put(&format!("{name}.tar.gz"), &ArchiveBuilder::new().file("config.pbtxt", config).directory("1").gzip());
    }
    store.put("huge.tar.gz", &ArchiveBuilder::new().file("config.pbtxt", huge.text()).gzip());
    let server = store.launch().option("--model-memory", "2GiB").start().await;
    (store, server)
}

async fn run(script: &str, address: fn(&Server) -> String) {
    let (_store, server) = serve().await;
    let artifacts = test_util::artifacts();
    let output = python(script, &[&address(&server), &artifacts.display().to_string()]).await;
    assert_eq!(output.trim_end().lines().last(), Some("all right"), "{output}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_gets_right_answers_and_right_exceptions() {
    run("boto3_client.py", Server::address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_gets_right_answers_and_right_exceptions() {
    run("triton_client.py", Server::address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_gets_the_same_over_grpc() {
    run("triton_grpc_client.py", Server::grpc_address).await;
}

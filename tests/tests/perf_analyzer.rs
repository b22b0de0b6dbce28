//! NVIDIA's `perf_analyzer`, unmodified: over HTTP and gRPC, for a single model and for an ensemble, with a stream, and with shared memory.

use std::process::Stdio;

use e2e::{FolderStore, PATIENCE, Server, Store, batching_archive, pipeline_archive};
use tokio::process::Command;

async fn serve() -> (FolderStore, Server) {
    let store = FolderStore::new();
    store.put("single.tar.gz", &batching_archive("single"));
    store.put("pipeline.tar.gz", &pipeline_archive());
    let server = store.launch().start().await;
    (store, server)
}

/// Runs it on a model with an input `X` of open size. See [`analyze`].
async fn measure(model: &str, address: &str, options: &[&str]) -> String {
    analyze(model, address, &[&["--shape", "X:2"], options].concat()).await
}

/// Runs it and returns its report. It asks for the server's own statistics too, and fails without.
pub(crate) async fn analyze(model: &str, address: &str, options: &[&str]) -> String {
    let folder = test_util::artifacts().join("perf_analyzer");
    let mut command = Command::new(folder.join("perf_analyzer"));
    command.env("LD_LIBRARY_PATH", &folder).stdin(Stdio::null()).kill_on_drop(true);
    command.args(["-m", model, "-u", address, "--request-count", "60"]).args(options);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends");
    let output = output.expect("`cargo xtask setup --tests` has fetched it");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{model} {options:?}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_model_over_http_and_grpc() {
    let (_store, server) = serve().await;
    let runs: [(String, &[&str]); 3] = [
        (server.address(), &["-i", "HTTP", "-b", "4"]),
        (server.grpc_address(), &["-i", "gRPC", "-b", "4"]),
        (server.grpc_address(), &["-i", "gRPC", "-b", "4", "--streaming", "--async"]),
    ];
    for (address, options) in runs {
        let report = measure("single.tar.gz", &address, options).await;
        crate::assert_has(
            &report,
            &["Inference count: ", "Execution count: ", "Successful request count: ", "throughput: "],
        );
    }
    let metrics = server.metrics().await;
    assert!(metrics.sum("nv_inference_count", &[("model", "single.tar.gz")]) >= 3.0 * 60.0 * 4.0);
    assert_eq!(metrics.sum("nv_inference_request_failure", &[("model", "single.tar.gz")]), 0.0);
    server.stop().await;
}

/// Inputs and outputs are in regions that it registers, and takes away again.
#[tokio::test(flavor = "multi_thread")]
async fn tensors_in_shared_memory() {
    let store = FolderStore::new();
    store.put("single.tar.gz", &batching_archive("single"));
    let server = store.launch().flag("--allow-client-shm").start().await;
    let runs: [(String, &[&str]); 3] = [
        (server.address(), &["-i", "HTTP"]),
        (server.grpc_address(), &["-i", "gRPC"]),
        (server.grpc_address(), &["-i", "gRPC", "--streaming", "--async"]),
    ];
    for (address, options) in runs {
        let shared = ["-b", "4", "--shared-memory", "system", "--output-shared-memory-size", "4096"];
        let report = measure("single.tar.gz", &address, &[options, &shared].concat()).await;
        crate::assert_has(&report, &["Successful request count: ", "throughput: "]);
    }
    let metrics = server.metrics().await;
    for reason in ["shared_memory_in", "shared_memory_out"] {
        assert!(metrics.sum("panoply_tensor_copies_total", &[("reason", reason)]) >= 3.0 * 60.0);
    }
    assert_eq!(metrics.sum("nv_inference_request_failure", &[("model", "single.tar.gz")]), 0.0);
    server.stop().await;
}

/// It takes the composing models' names from the ensemble's configuration, and wants configuration and statistics of each.
#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_and_its_composing_models() {
    let (_store, server) = serve().await;
    let header = "x-amzn-sagemaker-target-model:pipeline.tar.gz";
    let parts = ["Composing models: ", "first, version:", "second, version:"];
    // It looks the steps up under the name in the configuration, and so breaks its report down only where that is the name
    // that it was given.
    let runs: [(&str, String, &[&str], &[&str]); 3] = [
        ("pipeline.tar.gz", server.grpc_address(), &["-i", "gRPC"], &["throughput: "]),
        ("pipeline", server.address(), &["-i", "HTTP", "-H", header], &parts),
        ("pipeline", server.grpc_address(), &["-i", "gRPC", "-H", header], &parts),
    ];
    for (model, address, options, expected) in runs {
        crate::assert_has(&measure(model, &address, options).await, expected);
    }
    server.stop().await;
}

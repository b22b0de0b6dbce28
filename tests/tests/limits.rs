//! Every wait and queue has a bound with a name.

use std::sync::Arc;

use e2e::{
    Answer, Config, Endless, FolderStore, Gate, Http, Launch, S3Store, Server, Store, generated_model, spin_request,
    until,
};
use serde_json::json;
use test_util::archive::ArchiveBuilder;

use crate::single_flight::big_echo;
use crate::{ask_echo, assert_has};

const TARGET: &str = "spin.tar.gz";

fn spin(lines: &[&str]) -> Vec<u8> {
    let config = Config::new("spin", "onnxruntime").input("rounds", "INT64", "1").output("done", "INT64", "1");
    let config = lines.iter().fold(config, |config, line| config.line(line));
    ArchiveBuilder::new()
        .file("spin/config.pbtxt", config.text())
        .file("spin/1/model.onnx", generated_model("spin"))
        .gzip()
}

struct Scene {
    server: Arc<Server>,
    store: FolderStore,
}

impl Scene {
    async fn new(lines: &[&str], adjust: impl FnOnce(Launch) -> Launch) -> Self {
        let store = FolderStore::new();
        store.put(TARGET, &spin(lines));
        let server = Arc::new(adjust(store.launch()).start().await);
        server.invoke(TARGET, &spin_request(1)).await.ok();
        Scene { server, store }
    }

    /// Keeps an instance busy until it is dropped.
    fn occupy(&self) -> Endless {
        Endless::invoke(&self.server.url("/invocations"), TARGET)
    }

    /// A request on a connection of its own.
    fn ask(&self, rounds: u64) -> tokio::task::JoinHandle<Answer> {
        let url = self.server.url("/invocations");
        tokio::spawn(async move { Http::new().invoke(&url, TARGET, &spin_request(rounds)).await })
    }

    async fn until_metric(&self, name: &str, count: f64) {
        until(&format!("{name} is {count}"), async || {
            (self.server.metrics().await.sum(name, &[]) == count).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_queue_is_bounded() {
    let scene = Scene::new(&[], |launch| launch.option("--max-queue-size", "1")).await;
    let running = scene.occupy();
    scene.until_metric("panoply_requests_in_flight", 1.0).await;
    let waiting = scene.ask(1);
    scene.until_metric("nv_inference_pending_request_count", 1.0).await;
    let refused = scene.ask(1).await.expect("the request runs");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert_has(&refused.error(), &["Exceeds maximum queue size"]);
    drop(running);
    waiting.await.expect("the request runs").ok();
    let metrics = scene.server.metrics().await;
    assert_eq!(metrics.sum("nv_inference_request_failure", &[("reason", "REJECTED")]), 1.0);
}

const SHORT: &str = "parameters { key: \"infer_timeout\" value { string_value: \"300ms\" } }";
const LONG: &str = "parameters { key: \"infer_timeout\" value { string_value: \"1h\" } }";

/// While one model has the only place to run, requests to another one wait.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_is_bounded_by_server_model_and_request() {
    // A request's own timeout is for the queue alone, and counts where the model lets it.
    let policy = "dynamic_batching { default_queue_policy { allow_timeout_override: true } }";
    let cases = [("server", vec![], "300ms", None), ("model", vec![SHORT], "60s", None)];
    for (whose, lines, by_server, timeout) in cases.into_iter().chain([("request", vec![policy], "60s", Some(300_000))])
    {
        let scene = Scene::new(&[LONG], |launch| {
            launch.option("--execution-concurrency", "1").option("--infer-timeout", by_server)
        })
        .await;
        scene.store.put("waits.tar.gz", &spin(&lines));
        scene.server.invoke("waits.tar.gz", &spin_request(1)).await.ok();
        let running = scene.occupy();
        scene.until_metric("panoply_requests_in_flight", 1.0).await;
        let mut late = spin_request(1);
        late["parameters"] = json!({ "timeout": timeout.unwrap_or(0) });
        let late = scene.server.invoke("waits.tar.gz", &late).await;
        assert_eq!(late.status, 503, "{whose}: {late:?}");
        assert_has(&late.error(), &["Request timeout expired"]);
        drop(running);
        scene.until_metric("panoply_requests_in_flight", 0.0).await;
    }
}

/// The same limit holds for the request that runs: its caller is answered, and the model is free at once.
#[tokio::test(flavor = "multi_thread")]
async fn running_is_bounded_by_server_and_model() {
    let by_model = "parameters { key: \"infer_timeout\" value { string_value: \"1s\" } }";
    for (whose, lines, by_server) in [("server", vec![], "1s"), ("model", vec![by_model], "60s")] {
        let scene = Scene::new(&lines, |launch| launch.option("--infer-timeout", by_server)).await;
        let running = scene.occupy().answer().await.expect("it is answered");
        assert_eq!(running.status, 504, "{whose}: {running:?}");
        assert_has(&running.error(), &["took longer than the request may"]);
        assert_eq!(scene.ask(7).await.expect("the request runs").ok().numbers("done"), [7.0]);
        let metrics = scene.server.metrics().await;
        let ended = |reason: &str| metrics.sum("nv_inference_request_failure", &[("reason", reason)]);
        assert_eq!(["BACKEND", "CANCELED", "OTHER"].map(ended), [1.0, 0.0, 0.0], "{whose}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_run_side_by_side() {
    let scene = Scene::new(&["instance_group [ { count: 2 kind: KIND_CPU } ]"], |launch| launch).await;
    let running = [scene.occupy(), scene.occupy()];
    scene.until_metric("panoply_requests_in_flight", 2.0).await;
    let waiting = scene.ask(1);
    scene.until_metric("nv_inference_pending_request_count", 1.0).await;
    drop(running);
    waiting.await.expect("the request runs").ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_bounded_in_time() {
    let store = S3Store::start().await;
    store.put("slow.tar.gz", &big_echo("slow"));
    let gate = Gate::closed(store.server.endpoint(), 64 << 10).await;
    let launch = store.launch_through(gate.endpoint()).option("--download-timeout", "300ms");
    let server = launch.start().await;
    let late = ask_echo(&server, "slow.tar.gz", &[1.0]).await;
    assert_eq!(late.status, 504, "{late:?}");
    assert_has(&late.error(), &["slow.tar.gz", "--download-timeout"]);
    let staging = std::fs::read_dir(launch.disk_cache().join("staging")).expect("the folder is there").count();
    assert_eq!(staging, 0);
    gate.open();
    ask_echo(&server, "slow.tar.gz", &[1.0]).await.ok();
    server.stop().await;
}

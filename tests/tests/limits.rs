//! Every wait and queue has a bound with a name.

use std::sync::Arc;

use e2e::{
    Answer, Config, FolderStore, Gate, Http, Launch, S3Store, Server, Store, generated_model, spin_request, until,
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
    _store: FolderStore,
}

impl Scene {
    async fn new(lines: &[&str], adjust: impl FnOnce(Launch) -> Launch) -> Self {
        let store = FolderStore::new();
        store.put(TARGET, &spin(lines));
        let server = Arc::new(adjust(store.launch()).start().await);
        server.invoke(TARGET, &spin_request(1)).await.ok();
        Scene { server, _store: store }
    }

    /// A request that is busy for a second or so, on a connection of its own.
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
    let running = scene.ask(300_000);
    scene.until_metric("panoply_requests_in_flight", 1.0).await;
    let waiting = scene.ask(1);
    scene.until_metric("nv_inference_pending_request_count", 1.0).await;
    let refused = scene.ask(1).await.expect("the request runs");
    assert!(!running.is_finished(), "the model was to be busy longer");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert_has(&refused.error(), &["Exceeds maximum queue size"]);
    running.await.expect("the request runs").ok();
    waiting.await.expect("the request runs").ok();
    let metrics = scene.server.metrics().await;
    assert_eq!(metrics.sum("nv_inference_request_failure", &[("reason", "REJECTED")]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_and_running_are_bounded_by_server_model_and_request() {
    let model = "parameters { key: \"infer_timeout\" value { string_value: \"50ms\" } }";
    let server = |launch: Launch| launch.option("--infer-timeout", "50ms");
    // A request's own timeout is for the queue alone, and counts where the model lets it.
    let policy = "dynamic_batching { default_queue_policy { allow_timeout_override: true } }";
    let cases = [
        ("server", vec![], true, None),
        ("model", vec![model], false, None),
        ("request", vec![policy], false, Some(50_000)),
    ];
    for (whose, lines, by_server, timeout) in cases {
        let scene = Scene::new(&lines, |launch| if by_server { server(launch) } else { launch }).await;
        let running = scene.ask(300_000);
        scene.until_metric("panoply_requests_in_flight", 1.0).await;
        let mut late = spin_request(1);
        late["parameters"] = json!({ "timeout": timeout.unwrap_or(0) });
        let late = scene.server.invoke(TARGET, &late).await;
        assert_eq!(late.status, 503, "{whose}: {late:?}");
        assert_has(&late.error(), &["Request timeout expired"]);
        let running = running.await.expect("the request runs");
        match timeout {
            Some(_) => drop(running.ok()),
            // The same limit holds for the request that runs: the model goes on, its caller is answered.
            None => {
                assert_eq!(running.status, 504, "{whose}: {running:?}");
                assert_has(&running.error(), &["took longer than the request may"]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_run_side_by_side() {
    let scene = Scene::new(&["instance_group [ { count: 2 kind: KIND_CPU } ]"], |launch| launch).await;
    let running = [scene.ask(300_000), scene.ask(300_000)];
    scene.until_metric("panoply_requests_in_flight", 2.0).await;
    let waiting = scene.ask(1);
    scene.until_metric("nv_inference_pending_request_count", 1.0).await;
    for request in running.into_iter().chain([waiting]) {
        request.await.expect("the request runs").ok();
    }
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

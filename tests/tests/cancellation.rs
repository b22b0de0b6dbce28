//! Runs that nobody waits for any more end, as seen over HTTP. `tritonclient` does the same over gRPC, and the limits on time
//! are in `limits`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::{Config, ENDLESS, Endless, FolderStore, Server, Store, generated_model, spin_request, until};
use test_util::archive::ArchiveBuilder;

async fn serve(lines: &[&str]) -> (FolderStore, Arc<Server>) {
    let config = Config::new("spin", "onnxruntime").input("rounds", "INT64", "1").output("done", "INT64", "1");
    let config = lines.iter().fold(config, |config, line| config.line(line));
    let archive = ArchiveBuilder::new().file("spin/config.pbtxt", config.text());
    let store = FolderStore::new();
    store.put("spin", &archive.file("spin/1/model.onnx", generated_model("spin")).gzip());
    let server = Arc::new(store.launch().start().await);
    server.invoke("spin", &spin_request(1)).await.ok();
    (store, server)
}

async fn until_in_flight(server: &Server, count: f64) {
    until(&format!("{count} requests are in flight"), async || {
        (server.metrics().await.sum("panoply_requests_in_flight", &[]) == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_its_run() {
    for lines in [vec![], vec!["dynamic_batching { }"]] {
        let (_store, server) = serve(&lines).await;
        for url in [server.url("/v2/models/spin/infer"), server.url("/v2/models/spin/generate_stream")] {
            let body = match url.ends_with("infer") {
                true => spin_request(ENDLESS),
                false => serde_json::json!({ "rounds": ENDLESS }),
            };
            let gone = Endless::post(&url, &body);
            until_in_flight(&server, 1.0).await;
            drop(gone);
            let begin = Instant::now();
            assert_eq!(server.invoke("spin", &spin_request(7)).await.ok().numbers("done"), [7.0]);
            assert!(begin.elapsed() < Duration::from_secs(10), "{url}: {:?}", begin.elapsed());
        }
        until_in_flight(&server, 0.0).await;
        let metrics = server.metrics().await;
        let failed = |reason: &str| metrics.sum("nv_inference_request_failure", &[("reason", reason)]);
        assert_eq!(["CANCELED", "BACKEND", "OTHER", "REJECTED"].map(failed), [2.0, 0.0, 0.0, 0.0], "{lines:?}");
        assert_eq!(metrics.sum("panoply_failed_batches_total", &[]), 0.0);
        let before = server.processor_ticks();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let busy = server.processor_ticks() - before;
        assert!(busy < 20, "no core is kept busy: {busy} ticks of 10 ms in half a second");
    }
}

//! NoRoom: what can never fit, and what does not fit because others are in use.

use std::sync::Arc;
use std::time::Duration;

use e2e::{Config, Endless, FolderStore, Server, Store, fp32, infer, spin_archive, spin_request, until};
use test_util::archive::ArchiveBuilder;

use crate::{ask_echo, assert_has};

/// An identity model that claims to take so much.
pub(crate) fn claiming(bytes: u64) -> Vec<u8> {
    let config = Config::new("m", "identity").input("X", "FP32", "-1").output("Y", "FP32", "-1");
    ArchiveBuilder::new().file("config.pbtxt", config.parameter("memory_bytes", &bytes.to_string()).text()).gzip()
}

fn echo_request() -> serde_json::Value {
    infer(&[fp32("X", &[1.0])])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_larger_than_the_budget_has_no_room_anywhere() {
    let store = FolderStore::new();
    store.put("huge.tar.gz", &claiming(200 << 20));
    store.put("small.tar.gz", &claiming(100 << 20));
    let server = store.launch().option("--model-memory", "150MiB").start().await;
    let needed = (200_u64 << 20).to_string();
    let reason = ["huge.tar.gz", needed.as_str(), "--model-memory"];

    for path in ["/invocations", "/v2/models/huge.tar.gz/infer"] {
        let answer = server.http().invoke(&server.url(path), "huge.tar.gz", &echo_request()).await;
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        assert!(answer.header("retry-after").is_some(), "{path}: {answer:?}");
        assert_has(&answer.error(), &reason);
    }
    let runtime = server.http().invoke(&server.url("/endpoints/e/invocations"), "huge.tar.gz", &echo_request()).await;
    assert_eq!((runtime.status, runtime.header("x-amzn-errortype")), (503, Some("ServiceUnavailable")), "{runtime:?}");
    assert_has(runtime.json()["Message"].as_str().unwrap_or_default(), &reason);
    let container = server.http().invoke(&server.container_url("/invocations"), "huge.tar.gz", &echo_request()).await;
    assert_eq!(container.status, 507, "{container:?}");
    // Nothing is broken, and its neighbour fits.
    ask_echo(&server, "small.tar.gz", &[1.0]).await.ok();
}

/// A server with room for 10 MB where `spin` is busy: `patience` is how long a load waits for room.
async fn busy(store: &FolderStore, patience: &str) -> (Arc<Server>, Endless) {
    store.put("spin.tar.gz", &spin_archive());
    store.put("all.tar.gz", &claiming(10 << 20));
    let launch = store.launch().option("--model-memory", "10MiB").option("--room-timeout", patience);
    let server = Arc::new(launch.start().await);
    server.invoke("spin.tar.gz", &spin_request(1)).await.ok();
    let spin = Endless::invoke(&server.url("/invocations"), "spin.tar.gz");
    until("the model is busy", async || {
        (server.metrics().await.sum("panoply_requests_in_flight", &[]) == 1.0).then_some(())
    })
    .await;
    (server, spin)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_in_use_is_never_evicted() {
    let store = FolderStore::new();
    let (server, spin) = busy(&store, "10ms").await;
    let refused = ask_echo(&server, "all.tar.gz", &[1.0]).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_has(&refused.error(), &["all.tar.gz", "in use"]);
    drop(spin);
    until("nobody uses the model", async || {
        (server.metrics().await.sum("panoply_requests_in_flight", &[]) == 0.0).then_some(())
    })
    .await;
    // Now that nobody uses it, it goes.
    ask_echo(&server, "all.tar.gz", &[1.0]).await.ok();
    assert_eq!(server.metrics().await.sum("panoply_evictions_total", &[("tier", "memory")]), 1.0);
    assert_eq!(server.invoke("spin.tar.gz", &spin_request(1)).await.ok().cache(), "disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_waits_for_a_model_in_use_to_make_room() {
    let store = FolderStore::new();
    let (server, spin) = busy(&store, "60s").await;
    let asking = server.clone();
    let waiting = tokio::spawn(async move { ask_echo(&asking, "all.tar.gz", &[1.0]).await.ok() });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "it was loaded while the other was in use");
    drop(spin);
    assert_eq!(waiting.await.expect("the request runs").cache(), "store");
}

//! The disk cache's bound.

use e2e::{Endless, S3Store, Server, Store, generated_model, infer, padding, scaling_archive, spin_request, until};
use serde_json::{Value, json};
use test_util::archive::ArchiveBuilder;

use crate::assert_has;

/// Room for two archives of a little over 1 MiB.
const CAPACITY: &str = "2500KiB";

fn request() -> Value {
    infer(&[json!({ "name": "x", "datatype": "FP32", "shape": [1, 512], "data": vec![1.0; 512] })])
}

async fn serve(model_memory: &str) -> (S3Store, Server) {
    let store = S3Store::start().await;
    for (name, factor) in [("a", 1), ("b", 2), ("c", 3)] {
        store.put(name, &scaling_archive(factor));
    }
    let launch = store.launch().option("--disk-cache-size", CAPACITY).option("--model-memory", model_memory);
    let server = launch.start().await;
    (store, server)
}

async fn bytes_on_disk(server: &Server) -> f64 {
    let metrics = server.metrics().await;
    let (bytes, capacity) =
        (metrics.sum("panoply_disk_cache_bytes", &[]), metrics.sum("panoply_disk_cache_capacity_bytes", &[]));
    assert_eq!(capacity, 2500.0 * 1024.0);
    assert!(bytes <= capacity, "{bytes} of {capacity}");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_cache_evicts_what_was_not_used_for_longest() {
    // One archive at a time fits in memory, so that the others' files are free to go.
    let (store, server) = serve("1800KiB").await;
    for (name, tier) in [("a", "store"), ("b", "store"), ("a", "disk"), ("c", "store"), ("a", "disk"), ("b", "store")] {
        assert_eq!(server.invoke(name, &request()).await.ok().cache(), tier, "{name}");
        bytes_on_disk(&server).await;
    }
    assert_eq!(["a", "b", "c"].map(|name| store.gets(name)), [1, 2, 1]);
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("panoply_evictions_total", &[("tier", "disk"), ("reason", "capacity")]), 2.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_in_memory_that_nobody_uses_make_room_on_disk() {
    let (store, server) = serve("100MiB").await;
    for name in ["a", "b", "c"] {
        assert_eq!(server.invoke(name, &request()).await.ok().cache(), "store", "{name}");
        bytes_on_disk(&server).await;
    }
    // The least recently used one went, from memory and from disk.
    for (name, tier) in [("b", "memory"), ("c", "memory"), ("a", "store")] {
        assert_eq!(server.invoke(name, &request()).await.ok().cache(), tier, "{name}");
    }
    assert_eq!(["a", "b", "c"].map(|name| store.gets(name)), [2, 1, 1]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_everything_on_disk_is_in_use_there_is_no_room() {
    let (store, server) = serve("100MiB").await;
    let busy = ArchiveBuilder::new().file("spin/1/model.onnx", generated_model("spin"));
    store.put("busy", &busy.file("spin/1/padding", padding(2 << 20)).gzip());
    server.invoke("busy", &spin_request(1)).await.ok();
    let spin = Endless::invoke(&server.url("/invocations"), "busy");
    until("the model is busy", async || {
        (server.metrics().await.sum("panoply_requests_in_flight", &[]) == 1.0).then_some(())
    })
    .await;
    let refused = server.invoke("a", &request()).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_has(&refused.error(), &["a", "--disk-cache-size"]);
    assert!(bytes_on_disk(&server).await > 2.0 * 1024.0 * 1024.0);
    // Nothing is broken, and afterwards there is room.
    drop(spin);
    until("the model is not in use", async || {
        (server.metrics().await.sum("panoply_requests_in_flight", &[]) == 0.0).then_some(())
    })
    .await;
    assert_eq!(server.invoke("a", &request()).await.ok().cache(), "store");
    bytes_on_disk(&server).await;
    server.stop().await;
}

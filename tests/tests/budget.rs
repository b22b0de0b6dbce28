//! A budget that holds 3 of 10 models: answers are right, come from the right model, and the budget is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::{FolderStore, Server, Store, infer, scaling_archive};
use futures::future::join_all;
use serde_json::{Value, json};

const MODELS: usize = 10;
const CLIENTS: usize = 16;
const REQUESTS: usize = 40;

fn target(factor: usize) -> String {
    format!("by-{factor}.tar.gz")
}

fn request(value: f64) -> Value {
    infer(&[json!({ "name": "x", "datatype": "FP32", "shape": [1, 512], "data": vec![value; 512] })])
}

async fn resident_bytes(server: &Server) -> f64 {
    server.metrics().await.sum("panoply_resident_bytes", &[])
}

/// Asks for models in an order of its own; every answer is `factor * value`.
async fn client(server: Arc<Server>, number: usize) {
    let mut state = number as u64 + 1;
    for round in 0..REQUESTS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let factor = 1 + (state >> 33) as usize % MODELS;
        let value = (number * REQUESTS + round) as f64;
        let answer = server.invoke(&target(factor), &request(value)).await.ok();
        let expected = factor as f64 * value;
        assert!(answer.numbers("y").iter().all(|number| *number == expected), "{factor} * {value}: {answer:?}");
        assert_eq!(answer.json()["model_name"], target(factor));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_of_ten_models_fit_and_every_answer_is_right() {
    let store = FolderStore::new();
    (1..=MODELS).for_each(|factor| store.put(&target(factor), &scaling_archive(factor)));
    let probe = store.launch().start().await;
    probe.invoke(&target(1), &request(1.0)).await.ok();
    let one = resident_bytes(&probe).await;
    assert!(one >= 1_048_576.0, "the model holds 1 MiB of weights, but counts as {one} bytes");
    probe.stop().await;

    let budget = (3.5 * one) as u64;
    let server = Arc::new(store.launch().option("--model-memory", &format!("{budget}B")).start().await);
    let done = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn(watch_budget(server.clone(), budget, done.clone()));
    let clients = (0..CLIENTS).map(|number| tokio::spawn(client(server.clone(), number)));
    for client in join_all(clients).await {
        client.expect("every answer is right");
    }
    done.store(true, Ordering::SeqCst);
    watch.await.expect("the budget is kept");
    let metrics = server.metrics().await;
    let evictions = metrics.sum("panoply_evictions_total", &[("tier", "memory"), ("reason", "room")]);
    let loads = metrics.sum("panoply_model_loads_total", &[]);
    assert!(evictions >= (MODELS - 3) as f64, "{evictions} evictions");
    let resident = metrics.sum("panoply_resident_archives", &[]);
    assert_eq!(loads - evictions, resident, "what was loaded is in memory or was evicted");
    assert!((1.0..=3.0).contains(&resident), "{resident} are in memory");
    let requests = (CLIENTS * REQUESTS) as f64;
    assert_eq!(metrics.sum("nv_inference_request_success", &[]), requests);
    assert_eq!(metrics.sum("panoply_cache_requests_total", &[]), requests);
    assert_eq!(metrics.sum("panoply_downloads_total", &[]), MODELS as f64, "evicted models come back from disk");
}

async fn watch_budget(server: Arc<Server>, budget: u64, done: Arc<AtomicBool>) {
    while !done.load(Ordering::SeqCst) {
        let bytes = resident_bytes(&server).await;
        assert!(bytes <= budget as f64, "{bytes} bytes of {budget} are used");
    }
}

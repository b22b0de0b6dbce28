//! The response cache over the wire: hits, misses, statistics and metrics, of single models, ensembles and their steps.

use e2e::{Answer, Config, FolderStore, Server, Store, generated_model, onnx_archive, pipeline_of, scaling_archive};
use serde_json::{Value, json};
use test_util::archive::ArchiveBuilder;

use crate::assert_has;

/// FP32 [1, 2] `X` to `Y`; `cached` says whether answers may come from the cache.
fn config(config: Config, cached: bool) -> Config {
    let config = config.line("max_batch_size: 8").input("X", "FP32", "2").output("Y", "FP32", "2");
    if cached { config.line("response_cache { enable: true }") } else { config }
}

fn single(cached: bool) -> Vec<u8> {
    let config = config(Config::new("single", "identity"), cached);
    ArchiveBuilder::new().file("single/config.pbtxt", config.text()).directory("single/1").gzip()
}

async fn ask(server: &Server, target: &str, data: [f32; 2]) -> Answer {
    let input = json!({ "name": "X", "datatype": "FP32", "shape": [1, 2], "data": data });
    let answer = server.invoke(target, &json!({ "id": "some", "inputs": [input] })).await.ok();
    assert_eq!(answer.numbers("Y"), data.map(f64::from));
    answer
}

/// Requests that succeeded, executions, hits, misses.
async fn counts(server: &Server, path: &str) -> [u64; 4] {
    let answer = server.get(&format!("/v2/models/{path}/stats")).await.ok();
    let model: Value = answer.json()["model_stats"][0].clone();
    let count = |name: &str| model["inference_stats"][name]["count"].as_u64().expect("a count");
    let executions = model["execution_count"].as_u64().expect("a count");
    assert_eq!(count("success"), count("queue"), "the queue counts hits as well");
    assert_eq!(count("success") - count("cache_hit"), count("compute_infer"), "computing does not");
    [count("success"), executions, count("cache_hit"), count("cache_miss")]
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_are_computed_once_and_counted_as_triton_counts() {
    let store = FolderStore::new();
    store.put("cached", &single(true));
    store.put("plain", &single(false));
    let server = store.launch().option("--cache-config", "local,size=1MiB").start().await;
    for target in ["cached", "plain"] {
        for data in [[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [1.0, 2.0]] {
            let answer = ask(&server, target, data).await;
            assert_eq!(answer.json()["id"], "some");
        }
    }
    assert_eq!(counts(&server, "cached").await, [4, 2, 2, 2]);
    assert_eq!(counts(&server, "plain").await, [4, 4, 0, 0]);
    let metrics = server.metrics().await;
    let sum = |name: &str| metrics.sum(name, &[("model", "cached"), ("version", "1")]);
    let names = ["nv_inference_request_success", "nv_inference_count", "nv_inference_exec_count"];
    assert_eq!(names.map(sum), [4.0, 2.0, 2.0]);
    assert_eq!(["nv_cache_num_hits_per_model", "nv_cache_num_misses_per_model"].map(sum), [2.0, 2.0]);
    for family in ["nv_cache_hit_duration_per_model", "nv_cache_miss_duration_per_model"] {
        assert_eq!(metrics.kind(family), Some("counter"), "{family}");
        assert!(!metrics.has(family, &[("model", "plain")]), "{family} is only of models that are cached");
    }
    let whole = ["nv_cache_num_entries", "nv_cache_num_hits", "nv_cache_num_misses", "nv_cache_num_lookups"];
    assert_eq!(whole.map(|name| metrics.sum(name, &[])), [2.0, 2.0, 2.0, 4.0]);
    let used = metrics.sum("nv_cache_util", &[]);
    assert!(used > 0.0 && used < 0.01, "{used}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_servers_option_nothing_is_cached() {
    let store = FolderStore::new();
    store.put("cached", &single(true));
    let server = store.launch().start().await;
    ask(&server, "cached", [1.0, 2.0]).await;
    ask(&server, "cached", [1.0, 2.0]).await;
    assert_eq!(counts(&server, "cached").await, [2, 2, 0, 0]);
    assert_eq!(server.metrics().await.names().filter(|name| name.starts_with("nv_cache")).count(), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_an_ensemble_and_a_whole_ensemble_are_cached() {
    let store = FolderStore::new();
    let identity = |name: &str, cached| config(Config::new(name, "identity"), cached);
    store.put("step", &pipeline_of(Config::ensemble("pipeline"), [identity("first", true), identity("second", false)]));
    let whole = Config::ensemble("pipeline").line("response_cache { enable: true }");
    store.put("whole", &pipeline_of(whole, [identity("third", false), identity("fourth", false)]));
    let server = store.launch().option("--response-cache-byte-size", "1MiB").start().await;
    for target in ["step", "step", "whole", "whole"] {
        ask(&server, target, [1.0, 2.0]).await;
    }
    assert_eq!(counts(&server, "step").await, [2, 2, 0, 0]);
    assert_eq!(counts(&server, "first").await, [2, 1, 1, 1]);
    assert_eq!(counts(&server, "second").await, [2, 2, 0, 0]);
    assert_eq!(counts(&server, "whole").await, [2, 1, 1, 1]);
    assert_eq!(counts(&server, "third").await, [1, 1, 0, 0]);
    server.stop().await;
}

/// A model that answers `y = factor * x`, cached.
fn scaling(factor: usize) -> Vec<u8> {
    ArchiveBuilder::new()
        .file("scaling/1/model.onnx", generated_model(&format!("scaling_{factor}")))
        .file("scaling/config.pbtxt", "backend: \"onnxruntime\" response_cache { enable: true }")
        .gzip()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_never_answers_from_an_older_ones_entries() {
    let store = FolderStore::new();
    store.put("a", &scaling(2));
    store.put("other", &scaling_archive(5));
    store.put("onnx", &onnx_archive("scaling", &generated_model("scaling_3")));
    // There is room for one of them, so that each load evicts the one before.
    let launch = store.launch().option("--cache-config", "local,size=1MiB").option("--store-check-interval", "0s");
    let server = launch.option("--model-memory", "1900KiB").start().await;
    let input = json!({ "name": "x", "datatype": "FP32", "shape": [1, 512], "data": vec![1.0; 512] });
    let body = json!({ "inputs": [input] });
    let first = async |target: &str| server.invoke(target, &body).await.ok().numbers("y")[0];
    assert_eq!((first("a").await, first("a").await), (2.0, 2.0));
    let entries = async || server.metrics().await.sum("nv_cache_num_entries", &[]);
    assert_eq!(entries().await, 1.0);
    assert_eq!(first("other").await, 5.0);
    assert_eq!(entries().await, 0.0, "an evicted model's answers go with it");
    store.put("a", &scaling(4));
    assert_eq!((first("a").await, first("a").await), (4.0, 4.0));
    let answer = server.get("/v2/models/a/stats").await.ok();
    let stats = &answer.json()["model_stats"][0]["inference_stats"];
    assert_eq!((&stats["cache_hit"]["count"], &stats["cache_miss"]["count"]), (&json!(2), &json!(2)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_cached_is_refused_and_options_are_checked() {
    let store = FolderStore::new();
    let decoupled =
        config(Config::new("single", "identity"), true).line("model_transaction_policy { decoupled: true }");
    store.put("decoupled", &ArchiveBuilder::new().file("config.pbtxt", decoupled.text()).directory("1").gzip());
    let server = store.launch().start().await;
    let answer = server.invoke("decoupled", &json!({ "inputs": [] })).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let text =
        "Response Cache does not currently support model single with 'decoupled' transaction policy. Please disable";
    assert_has(&answer.text(), &[text, "config.pbtxt:"]);
    server.stop().await;
    let (code, text) = store.launch().option("--cache-config", "redis,host=here").run().await;
    assert_eq!(code, Some(64), "{text}");
    assert_has(&text, &["--cache-config", "only 'local'"]);
}

//! What `/metrics` tells: Triton's families with their names, labels and types, and the cache's own.

use e2e::{Config, FolderStore, Launch, Metrics, Store, echo, echo_named, until};
use test_util::archive::ArchiveBuilder;

use crate::ask_echo;

/// Triton's families that are exported; all are counters but the gauge of what waits.
const TRITON: [&str; 9] = [
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
];

/// Families of the cache and the front end, by type.
const PANOPLY: [(&str, &str); 19] = [
    ("panoply_downloads_total", "counter"),
    ("panoply_download_bytes_total", "counter"),
    ("panoply_download_duration_seconds", "histogram"),
    ("panoply_download_failures_total", "counter"),
    ("panoply_unpack_duration_seconds", "histogram"),
    ("panoply_model_loads_total", "counter"),
    ("panoply_model_load_duration_seconds", "histogram"),
    ("panoply_model_load_failures_total", "counter"),
    ("panoply_model_unloads_total", "counter"),
    ("panoply_model_unload_duration_seconds", "histogram"),
    ("panoply_evictions_total", "counter"),
    ("panoply_cache_requests_total", "counter"),
    ("panoply_resident_archives", "gauge"),
    ("panoply_resident_models", "gauge"),
    ("panoply_resident_bytes", "gauge"),
    ("panoply_disk_cache_bytes", "gauge"),
    ("panoply_queue_duration_seconds", "histogram"),
    ("panoply_requests_in_flight", "gauge"),
    ("panoply_requests_total", "counter"),
];

fn check_families(metrics: &Metrics) {
    for name in TRITON {
        assert_eq!(metrics.kind(name), Some("counter"), "{name}");
    }
    assert_eq!(metrics.kind("nv_inference_pending_request_count"), Some("gauge"));
    for (name, kind) in PANOPLY {
        assert_eq!(metrics.kind(name), Some(kind), "{name}");
    }
    for name in metrics.names().filter(|name| name.starts_with("panoply_")) {
        let units = ["_total", "_bytes", "_seconds", "_archives", "_models", "_in_flight", "_requests"];
        assert!(units.iter().any(|unit| name.ends_with(unit)), "{name} has no unit");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_load_eviction_and_request_is_seen() {
    let store = FolderStore::new();
    ["a", "b"].iter().for_each(|name| store.put(name, &echo_named(name, name)));
    store.put("bad", b"no archive");
    store.put("typo", &test_util::archive::ArchiveBuilder::new().file("config.pbtxt", "typo: 1").gzip());
    // There is room for one identity model of 4 KiB.
    let server = store.launch().option("--model-memory", "6KiB").start().await;
    for (target, status) in [("a", 200), ("a", 200), ("b", 200), ("a", 200), ("nope", 404), ("bad", 400), ("typo", 400)]
    {
        let answer = ask_echo(&server, target, &[1.0]).await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
    }
    let wrong = server.invoke("a", &e2e::infer(&[])).await;
    assert_eq!(wrong.status, 400, "{wrong:?}");

    let metrics = server.metrics().await;
    check_families(&metrics);
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let a = ("model", "a");
    assert_eq!(sum("nv_inference_request_success", &[a, ("version", "1")]), 3.0);
    assert_eq!(sum("nv_inference_count", &[a, ("version", "1")]), 3.0);
    assert_eq!(sum("nv_inference_exec_count", &[a]), 3.0);
    assert_eq!(sum("nv_inference_request_success", &[("model", "b")]), 1.0);
    for reason in ["OTHER", "BACKEND", "CANCELED", "REJECTED"] {
        assert!(metrics.has("nv_inference_request_failure", &[a, ("reason", reason), ("version", "1")]), "{reason}");
    }
    assert_eq!(sum("nv_inference_request_failure", &[a, ("reason", "OTHER")]), 1.0);
    assert_eq!(sum("nv_inference_pending_request_count", &[]), 0.0);

    let tiers = ["memory", "disk", "store"].map(|tier| sum("panoply_cache_requests_total", &[("tier", tier)]));
    assert_eq!(tiers, [2.0, 1.0, 2.0]);
    assert_eq!(sum("panoply_downloads_total", &[]), 3.0, "a, b, typo");
    assert!(sum("panoply_download_bytes_total", &[]) > 300.0);
    assert_eq!(sum("panoply_download_failures_total", &[("reason", "archive")]), 1.0);
    assert_eq!(sum("panoply_model_loads_total", &[]), 3.0);
    assert_eq!(sum("panoply_model_load_failures_total", &[]), 1.0);
    assert_eq!(sum("panoply_evictions_total", &[("tier", "memory"), ("reason", "room")]), 2.0);
    assert_eq!(sum("panoply_model_unloads_total", &[]), 2.0);
    assert_eq!(sum("panoply_resident_archives", &[]), 1.0);
    assert_eq!(sum("panoply_model_load_duration_seconds_count", &[]), 3.0);
    assert_eq!(sum("panoply_model_load_duration_seconds_bucket", &[("le", "+Inf")]), 3.0, "histograms have buckets");
    let outcome = |outcome| sum("panoply_requests_total", &[("surface", "invocations"), ("outcome", outcome)]);
    assert_eq!([outcome("success"), outcome("not_found"), outcome("invalid_argument")], [4.0, 1.0, 3.0]);
    assert_eq!(sum("panoply_requests_in_flight", &[]), 0.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_clients_make_up_make_no_series() {
    let store = FolderStore::new();
    store.put("echo", &echo());
    let server = store.launch().start().await;
    ask_echo(&server, "echo", &[1.0]).await.ok();
    ask_echo(&server, "made-up-0", &[1.0]).await;
    let before = server.metrics().await;
    for number in 1..50 {
        assert_eq!(ask_echo(&server, &format!("made-up-{number}"), &[1.0]).await.status, 404);
    }
    let after = server.metrics().await;
    assert_eq!(after.series_count(), before.series_count());
    assert_eq!(after.sum("panoply_requests_total", &[("outcome", "not_found")]), 50.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_past_the_limit_are_counted_as_other() {
    let store = FolderStore::new();
    (0..6).for_each(|number| store.put(&format!("m{number}"), &echo()));
    let server = store.launch().option("--metrics-model-limit", "2").start().await;
    for number in 0..6 {
        ask_echo(&server, &format!("m{number}"), &[1.0]).await.ok();
    }
    let metrics = server.metrics().await;
    assert_eq!(metrics.values("nv_inference_request_success", "model"), ["m0", "m1", "other"]);
    assert_eq!(metrics.sum("nv_inference_request_success", &[("model", "other")]), 4.0);
    assert_eq!(metrics.sum("nv_inference_request_success", &[]), 6.0);
    server.stop().await;
}

/// Summaries cost something for each request, and are off unless asked for; so are other quantiles.
#[tokio::test(flavor = "multi_thread")]
async fn summaries_and_tags_are_there_when_asked_for() {
    const SUMMARIES: [&str; 5] = ["request", "queue", "compute_input", "compute_infer", "compute_output"];
    let store = FolderStore::new();
    let config = Config::new("m", "identity").input("X", "FP32", "-1").output("Y", "FP32", "-1");
    let config = config.line("metric_tags { key: \"team\" value: \"search\" } response_cache { enable: true }");
    store.put("m", &ArchiveBuilder::new().file("m/config.pbtxt", config.text()).directory("m/1").gzip());
    let launch = store.launch().option("--cache-config", "local,size=1MiB");
    let on = launch.clone().option("--metrics-config", "summary_latencies=true;summary_quantiles=0.5:0.05,0.75:0.01");
    for (launch, expected) in [(launch, None), (on, Some("summary"))] {
        let server = launch.start().await;
        for data in [1.0, 1.0, 2.0] {
            ask_echo(&server, "m", &[data]).await.ok();
        }
        let metrics = server.metrics().await;
        let tags = [("model", "m"), ("version", "1"), ("_team", "search")];
        assert_eq!(metrics.sum("nv_inference_request_success", &tags), 3.0);
        assert!(metrics.has("nv_inference_request_failure", &[tags[0], tags[2], ("reason", "OTHER")]));
        for (part, count) in SUMMARIES.iter().zip([3.0, 3.0, 2.0, 2.0, 2.0]) {
            let name = format!("nv_inference_{part}_summary_us");
            assert_eq!(metrics.kind(&name), expected, "{name}");
            assert_eq!(metrics.values(&name, "quantile"), expected.map_or(vec![], |_| vec!["0.5", "0.75"]), "{name}");
            let counted = metrics.sum(&format!("{name}_count"), &tags);
            assert_eq!(counted, if expected.is_some() { count } else { 0.0 }, "{name}");
        }
        for (name, count) in [("nv_cache_hit_summary_per_model", 1.0), ("nv_cache_miss_summary_per_model", 2.0)] {
            assert_eq!(metrics.kind(name), expected, "{name}");
            assert_eq!(metrics.sum(&format!("{name}_count"), &tags), if expected.is_some() { count } else { 0.0 });
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_is_measured_and_metrics_can_be_closed() {
    let families = ["nv_cpu_utilization", "nv_cpu_memory_total_bytes", "nv_cpu_memory_used_bytes"];
    let server = Launch::new().option("--metrics-interval-ms", "20").start().await;
    let metrics = until("the machine is measured", async || {
        let metrics = server.metrics().await;
        families.iter().all(|name| metrics.has(name, &[])).then_some(metrics)
    })
    .await;
    let [utilization, total, used] = families.map(|name| metrics.sum(name, &[]));
    assert!((0.0..=1.0).contains(&utilization) && used > 1e6 && used < total, "{utilization} {used} {total}");
    server.stop().await;
    let server = Launch::new().option("--allow-cpu-metrics", "false").start().await;
    let metrics = server.metrics().await;
    assert!(!families.iter().any(|name| metrics.has(name, &[])));
    server.stop().await;
    let server = Launch::new().option("--allow-metrics", "false").start().await;
    assert_eq!(server.log_lines_with(&["listening", "\"metrics\""]), 0);
    server.stop().await;
}

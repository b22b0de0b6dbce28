//! The durations of requests for what is in memory, apart by whether something else was being loaded.

use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::harness::{Harness, mark};

/// Requests recorded while something was loaded, and while nothing was.
fn recorded(metrics: &PrometheusHandle) -> [u64; 2] {
    let rendered = metrics.render();
    ["true", "false"].map(|during_load| {
        let start = format!("panoply_resident_request_duration_seconds_count{{during_load=\"{during_load}\"}} ");
        let count = rendered.lines().find_map(|line| line.strip_prefix(&start));
        count.map_or(0, |count| count.parse().expect("a number"))
    })
}

/// On the test's own thread, where its recorder is.
#[tokio::test]
async fn requests_during_a_load_are_recorded_apart() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let metrics = recorder.handle();
    let harness = Harness::new(100, |_| {});
    harness.put("here", &[("mark", "1"), ("estimate", "1"), ("actual", "1")]);
    harness.put("coming", &[("mark", "2"), ("estimate", "1"), ("actual", "1"), ("load_gate", "coming")]);
    let gate = harness.backend.gate("coming");
    assert_eq!(harness.mark("here").await.expect("it loads"), 1);
    assert_eq!(recorded(&metrics), [0, 0], "it was not in memory");

    let cache = harness.cache.clone();
    let coming = tokio::spawn(async move { mark(&cache, "coming").await });
    let since = Instant::now();
    while harness.loads() < 2 {
        assert!(since.elapsed() < Duration::from_secs(60), "the load does not begin");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(harness.mark("here").await.expect("it serves on"), 1);
    assert_eq!(recorded(&metrics), [1, 0]);

    gate.send(()).expect("the load waits at its gate");
    assert_eq!(coming.await.expect("no panic").expect("it loads"), 2);
    assert_eq!(harness.mark("here").await.expect("it serves on"), 1);
    assert_eq!(recorded(&metrics), [1, 1]);
}

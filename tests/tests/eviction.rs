//! What leaves memory first: the policies that can be chosen.

use e2e::{Config, FolderStore, Server, Store, fp32, infer};
use test_util::archive::ArchiveBuilder;

/// An identity model, which takes 4 KiB and says so.
fn identity() -> Vec<u8> {
    let config = Config::new("m", "identity").input("X", "FP32", "-1").output("Y", "FP32", "-1");
    ArchiveBuilder::new().file("config.pbtxt", config.parameter("memory_bytes", "4096").text()).gzip()
}

/// Where a request to the model found it.
async fn ask(server: &Server, target: &str) -> String {
    server.invoke(target, &infer(&[fp32("X", &[1.0])])).await.ok().cache().to_owned()
}

/// Where a model that was asked for often is found after a scan through others, with room for three.
async fn after_a_scan(policy: &str) -> String {
    let store = FolderStore::new();
    let targets = ["hot", "a", "b", "c", "d", "e"].map(|name| format!("{name}.tar.gz"));
    targets.iter().for_each(|target| store.put(target, &identity()));
    let launch = store.launch().option("--model-memory", "12KiB").option("--eviction-policy", policy);
    let server = launch.start().await;
    for _ in 0..4 {
        ask(&server, "hot.tar.gz").await;
    }
    for target in &targets[1..] {
        assert_eq!(ask(&server, target).await, "store");
    }
    ask(&server, "hot.tar.gz").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_decides_what_a_scan_drives_out() {
    assert_eq!(after_a_scan("lru").await, "disk", "it was used least recently");
    assert_eq!(after_a_scan("s3-fifo").await, "memory", "it was used more than once, unlike the others");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_policy_serves_more_than_fits() {
    for policy in ["lru", "s3-fifo", "cost"] {
        let store = FolderStore::new();
        let targets: Vec<String> = (0..8).map(|index| format!("m{index}.tar.gz")).collect();
        targets.iter().for_each(|target| store.put(target, &identity()));
        let server = store.launch().option("--model-memory", "12KiB").option("--eviction-policy", policy).start().await;
        for step in 0..60 {
            ask(&server, &targets[step * 5 % 7 + step % 2]).await;
        }
        let metrics = server.metrics().await;
        assert_eq!(metrics.sum("panoply_resident_archives", &[]), 3.0, "{policy}");
        assert!(metrics.sum("panoply_evictions_total", &[("tier", "memory")]) > 0.0, "{policy}");
    }
}

/// Asks for `models` models in turn, with room for three, and returns the server.
async fn in_turn(models: usize) -> Server {
    let store = FolderStore::new();
    let targets: Vec<String> = (0..models).map(|index| format!("m{index}.tar.gz")).collect();
    targets.iter().for_each(|target| store.put(target, &identity()));
    let server = store.launch().option("--model-memory", "12KiB").start().await;
    for step in 0..40 {
        ask(&server, &targets[step % models]).await;
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_set_larger_than_memory_is_told_with_what_would_hold_it() {
    let on_host = [("device", "host")];
    let server = in_turn(5).await;
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("panoply_memory_shortfall_bytes", &on_host), 8192.0, "two models more");
    assert_eq!(metrics.sum("panoply_working_set_bytes", &on_host), 20_480.0, "five in all");
    let warning = ["WARN", "more is asked for than fits", "8192 more bytes", "20480 in all", "--model-memory"];
    assert_eq!(server.log_lines_with(&warning), 1, "said once, not with every load");

    let server = in_turn(3).await;
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("panoply_memory_shortfall_bytes", &on_host), 0.0);
    assert_eq!(metrics.sum("panoply_working_set_bytes", &on_host), 12_288.0);
    assert_eq!(server.log_lines_with(&["more is asked for than fits"]), 0);
}

//! Making room: eviction, waiting for pins, corrections of estimates.

use std::sync::Arc;
use std::time::Duration;

use inference::{ErrorKind, IndexEntry, InferenceService, ModelControl, ModelState};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::harness::{Harness, in_sequence, mark, model_config, request};

/// The names of the models in memory.
pub(crate) async fn ready(harness: &Harness) -> Vec<String> {
    let index: Vec<IndexEntry> = harness.cache.index().await;
    index.into_iter().filter(|entry| entry.state == ModelState::Ready).map(|entry| entry.name).collect()
}

/// Polls until something holds; every wait is bounded.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..12_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} did not happen within a minute");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_recently_used_goes_and_comes_back_from_disk() {
    let harness = Harness::new(20, |_| {});
    for (name, mark) in [("a", "1"), ("b", "2"), ("c", "3")] {
        harness.put(name, &[("mark", mark), ("estimate", "10"), ("actual", "10")]);
    }
    assert_eq!(harness.mark("a").await.expect("loads"), 1);
    assert_eq!(harness.mark("b").await.expect("loads"), 2);
    assert_eq!(harness.mark("a").await.expect("is loaded"), 1);
    assert_eq!(harness.mark("c").await.expect("loads"), 3);
    assert_eq!(ready(&harness).await, ["a", "c"], "b was used least recently");
    assert_eq!(harness.mark("b").await.expect("comes back"), 2);
    assert_eq!(harness.loads(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_model_stays_and_who_needs_its_room_waits_for_it() {
    let harness = Harness::new(10, |_| {});
    let gate = harness.backend.gate("busy");
    harness.put("busy", &[("run_gate", "busy"), ("estimate", "10"), ("actual", "10")]);
    harness.put("next", &[("mark", "2"), ("estimate", "10"), ("actual", "10")]);
    let cache = harness.cache.clone();
    let busy = tokio::spawn(async move { mark(&cache, "busy").await });
    eventually("the load of the busy model", async || ready(&harness).await == ["busy"]).await;
    let cache = harness.cache.clone();
    let next = tokio::spawn(async move { mark(&cache, "next").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ready(&harness).await, ["busy"], "a request holds it");
    gate.send(()).expect("the model waits at its gate");
    busy.await.expect("no panic").expect("it was never evicted");
    assert_eq!(next.await.expect("no panic").expect("room was made"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_waits_for_room_does_not_hold_up_one_that_fits() {
    let harness = Harness::new(12, |config| config.load_concurrency = std::num::NonZeroUsize::MIN);
    let gate = harness.backend.gate("busy");
    harness.put("busy", &[("run_gate", "busy"), ("estimate", "10"), ("actual", "10")]);
    harness.put("large", &[("mark", "2"), ("estimate", "10"), ("actual", "10")]);
    harness.put("small", &[("mark", "3"), ("estimate", "1"), ("actual", "2")]);
    let cache = harness.cache.clone();
    let busy = tokio::spawn(async move { mark(&cache, "busy").await });
    eventually("the load of the busy model", async || ready(&harness).await == ["busy"]).await;
    let cache = harness.cache.clone();
    let large = tokio::spawn(async move { mark(&cache, "large").await });
    let is_loading = async || harness.cache.index().await.iter().any(|e| e.state == ModelState::Loading);
    eventually("the large one's load", is_loading).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(harness.mark("small").await.expect("it fits beside the busy one"), 3);
    assert!(!large.is_finished());
    gate.send(()).expect("the model waits at its gate");
    busy.await.expect("no panic").expect("answers");
    assert_eq!(large.await.expect("no panic").expect("room was made"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_pins_leave_no_room_in_time_the_error_says_what_holds_it() {
    let harness = Harness::new(10, |config| config.room_timeout = Duration::from_millis(50));
    let gate = harness.backend.gate("busy");
    harness.put("busy", &[("run_gate", "busy"), ("estimate", "6"), ("actual", "6")]);
    harness.put("next", &[("estimate", "5"), ("actual", "5")]);
    let cache = harness.cache.clone();
    let busy = tokio::spawn(async move { cache.infer(request("busy")).await });
    eventually("the load of the busy model", async || ready(&harness).await == ["busy"]).await;
    let error = harness.mark("next").await.expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::NoRoom);
    assert!(error.message().contains("needs 5 bytes, 4 of 10 are free and 6 are in use"), "{error}");
    gate.send(()).expect("the model waits at its gate");
    busy.await.expect("no panic").expect("untouched by its neighbour's failure");
    harness.mark("next").await.expect("there is room now: that failure is not remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_takes_more_than_estimated_makes_more_room_or_is_undone() {
    let harness = Harness::new(20, |_| {});
    harness.put("small", &[("estimate", "5"), ("actual", "5")]);
    harness.put("liar", &[("mark", "2"), ("estimate", "1"), ("actual", "18")]);
    harness.put("hopeless", &[("estimate", "1"), ("actual", "21")]);
    harness.mark("small").await.expect("loads");
    assert_eq!(harness.mark("liar").await.expect("loads"), 2);
    assert_eq!(ready(&harness).await, ["liar"], "the other had to go once the real size was known");
    assert_eq!(harness.mark("hopeless").await.expect_err("never fits").kind(), ErrorKind::NoRoom);
    assert_eq!(ready(&harness).await, ["liar"], "what cannot fit evicts nobody");
    harness.mark("small").await.expect("its memory was given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_models_and_clients_share_a_small_budget() {
    let harness = Arc::new(Harness::new(30, |config| config.room_timeout = Duration::from_secs(60)));
    for index in 0..10 {
        harness.put(&format!("m{index}"), &[("mark", &index.to_string()), ("estimate", "10"), ("actual", "10")]);
    }
    let clients = (0..16u64).map(|client| {
        let harness = harness.clone();
        tokio::spawn(async move {
            for turn in 0..20u64 {
                let model = (client * 7 + turn * 3) % 10;
                assert_eq!(harness.mark(&format!("m{model}")).await.expect("there is always room in time"), model);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no client fails");
    }
    assert!(ready(&harness).await.len() <= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_cache_smaller_than_memory_makes_the_least_recently_used_leave_both() {
    // Each archive is charged its content and 4 KiB for each of its files and folders: 17 KiB, so two fit.
    let harness = Harness::with_disk(1 << 20, 40 << 10, |_| {});
    for (name, mark) in [("a", "1"), ("b", "2"), ("c", "3")] {
        harness.put(name, &[("mark", mark), ("estimate", "1"), ("actual", "1")]);
        harness.mark(name).await.expect("room is made on disk");
    }
    assert_eq!(ready(&harness).await, ["b", "c"]);
    assert_eq!(harness.mark("a").await.expect("fetched again"), 1);
}

/// On the test's own thread, where its recorder is.
#[tokio::test]
async fn room_made_on_disk_is_no_shortage_of_memory() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    // Two fit on disk, as above, and two in memory: of three in turn one is always fetched and loaded again.
    let harness = Harness::with_disk(25, 40 << 10, |_| {});
    for turn in 0..3 {
        for name in ["a", "b", "c"] {
            if turn == 0 {
                harness.put(name, &[("estimate", "10"), ("actual", "10")]);
            }
            harness.mark(name).await.expect("room is made on disk");
        }
    }
    assert_eq!(harness.loads(), 9);
    let rendered = recorder.handle().render();
    let mut shortfalls = rendered.lines().filter(|line| line.starts_with("panoply_memory_shortfall_bytes{"));
    let shortfall = shortfalls.next().expect("it is published");
    assert!(shortfall.ends_with("} 0"), "{shortfall}: more memory would spare nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_in_the_middle_of_a_sequence_stays_until_it_ends_or_is_idle() {
    let harness = Harness::new(10, |_| {});
    let sequences = "sequence_batching { max_sequence_idle_microseconds: 400000 }\n";
    let config = model_config(&[("mark", "1"), ("estimate", "10"), ("actual", "10")]) + sequences;
    harness.put_config("speech", &config);
    harness.put("other", &[("mark", "2"), ("estimate", "10"), ("actual", "10")]);
    harness.cache.infer(in_sequence("speech", true, false)).await.expect("a sequence begins");
    let begin = std::time::Instant::now();
    assert_eq!(harness.mark("other").await.expect("room is made"), 2);
    assert!(begin.elapsed() >= Duration::from_millis(390), "once the sequence was idle for long enough");
    harness.cache.infer(in_sequence("speech", false, false)).await.expect_err("that sequence is no more");

    harness.cache.infer(in_sequence("speech", true, false)).await.expect("a sequence begins");
    harness.cache.infer(in_sequence("speech", false, true)).await.expect("it ends");
    let begin = std::time::Instant::now();
    assert_eq!(harness.mark("other").await.expect("room is made"), 2);
    assert!(begin.elapsed() < Duration::from_millis(390), "nothing to wait for");
    assert_eq!(harness.loads(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_sequence_does_not_hold_up_the_end() {
    let harness = Harness::new(10, |_| {});
    let sequences = "sequence_batching { max_sequence_idle_microseconds: 3600000000 }\n";
    harness.put_config("speech", &(model_config(&[("mark", "1")]) + sequences));
    harness.cache.infer(in_sequence("speech", true, false)).await.expect("a sequence begins");
    tokio::time::timeout(Duration::from_secs(20), harness.cache.unload_all()).await.expect("it is unloaded");
    assert!(ready(&harness).await.is_empty());
}

//! Warm restarts: what was in memory comes back, behind what is asked for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use inference::{ErrorKind, LoadOverrides, ModelControl, ModelKey};

use crate::harness::{Harness, mark};
use crate::room::{eventually, ready};

/// A harness that notes what is in memory, with three archives of 10 bytes that were used in the order b, c, a.
async fn used() -> Harness {
    let harness = Harness::new(100, |_| {});
    for name in ["a", "b", "c", "other"] {
        harness.put(name, &[("mark", "1"), ("estimate", "10"), ("actual", "10"), ("load_gate", name)]);
    }
    tokio::spawn(harness.cache.restore_resident());
    for name in ["a", "b", "c", "a"] {
        harness.mark(name).await.expect("loads");
    }
    eventually("it notes", async || harness.has_noted()).await;
    harness
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_memory_is_loaded_again_the_most_valuable_first() {
    let harness = used().await.restarted(100).await;
    let first = harness.backend.gate("a");
    tokio::spawn(harness.cache.restore_resident());
    eventually("the first load", async || harness.loads() == 1).await;
    // A request's own load goes ahead of those that are still to come.
    assert_eq!(harness.mark("other").await.expect("loads"), 1);
    assert_eq!((ready(&harness).await, harness.loads()), (vec!["other".to_owned()], 2));
    let second = harness.backend.gate("c");
    first.send(()).expect("it waits at its gate");
    eventually("the second load", async || harness.loads() == 3).await;
    assert_eq!(ready(&harness).await, ["a", "other"]);
    second.send(()).expect("it waits at its gate");
    eventually("the third load", async || ready(&harness).await == ["a", "b", "c", "other"]).await;
    assert_eq!(harness.loads(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_restored_while_requests_wait_for_loads() {
    let harness = used().await.restarted(100).await;
    let gate = harness.backend.gate("other");
    let cache = harness.cache.clone();
    let asked = tokio::spawn(async move { mark(&cache, "other").await });
    eventually("the request's load", async || harness.loads() == 1).await;
    tokio::spawn(harness.cache.restore_resident());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(harness.loads(), 1);
    gate.send(()).expect("it waits at its gate");
    assert_eq!(asked.await.expect("no panic").expect("loads"), 1);
    eventually("all", async || ready(&harness).await == ["a", "b", "c", "other"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_left_out_and_nobody_leaves_for_it() {
    let harness = used().await.restarted(25).await;
    tokio::spawn(harness.cache.restore_resident());
    eventually("what fits", async || ready(&harness).await == ["a", "c"]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((ready(&harness).await, harness.loads()), (vec!["a".to_owned(), "c".to_owned()], 2));
    // What is asked for gets the room of what was worth least.
    assert_eq!(harness.mark("b").await.expect("loads"), 1);
    assert_eq!(ready(&harness).await, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_what_is_being_restored_joins_its_load() {
    let harness = used().await.restarted(100).await;
    let gate = harness.backend.gate("a");
    tokio::spawn(harness.cache.restore_resident());
    eventually("the first load", async || harness.loads() == 1).await;
    let cache = harness.cache.clone();
    let asked = tokio::spawn(async move { mark(&cache, "a").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.send(()).expect("it waits at its gate");
    assert_eq!(asked.await.expect("no panic").expect("loads"), 1);
    eventually("all", async || ready(&harness).await == ["a", "b", "c"]).await;
    assert_eq!(harness.loads(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_restored_is_noted_as_perhaps_fatal() {
    let harness = used().await.restarted(100).await;
    let gate = harness.backend.gate("a");
    tokio::spawn(harness.cache.restore_resident());
    eventually("the first load", async || harness.loads() == 1).await;
    assert_eq!(harness.restoring(), r#"["a"]"#);
    gate.send(()).expect("it waits at its gate");
    eventually("all", async || ready(&harness).await == ["a", "b", "c"]).await;
    eventually("nothing is noted any more", async || harness.restoring().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_pinned_stays_pinned() {
    let harness = used().await;
    harness.cache.load(&ModelKey::of_model("b"), LoadOverrides::default()).await.expect("is loaded");
    let harness = harness.restarted(20).await;
    tokio::spawn(harness.cache.restore_resident());
    eventually("what fits", async || ready(&harness).await == ["a", "b"]).await;
    for name in ["c", "other", "a"] {
        harness.mark(name).await.expect("loads");
        assert!(ready(&harness).await.contains(&"b".to_owned()), "after {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_restores_no_more_and_forgets_nothing() {
    let harness = used().await.restarted(100).await;
    let gate = harness.backend.gate("a");
    tokio::spawn(harness.cache.restore_resident());
    eventually("the first load", async || harness.loads() == 1).await;
    harness.cache.drain();
    gate.send(()).expect("it waits at its gate");
    eventually("its end", async || ready(&harness).await == ["a"]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(harness.loads(), 1);
    let harness = harness.restarted(100).await;
    tokio::spawn(harness.cache.restore_resident());
    eventually("all", async || ready(&harness).await == ["a", "b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leaves_for_what_a_client_pinned_either() {
    let harness = Harness::new(100, |_| {});
    for (name, estimate, actual) in [("pinned", "20", "10"), ("small", "5", "5"), ("other", "10", "10")] {
        harness.put(name, &[("mark", "1"), ("estimate", estimate), ("actual", actual)]);
    }
    tokio::spawn(harness.cache.restore_resident());
    harness.mark("small").await.expect("loads");
    harness.cache.load(&ModelKey::of_model("pinned"), LoadOverrides::default()).await.expect("loads");
    eventually("it notes", async || harness.has_noted()).await;
    let harness = harness.restarted(25).await;
    harness.mark("other").await.expect("loads");
    tokio::spawn(harness.cache.restore_resident());
    // As it was noted it fits, as it is estimated it does not.
    eventually("the one behind it", async || ready(&harness).await.contains(&"small".to_owned())).await;
    assert_eq!((ready(&harness).await, harness.loads()), (vec!["other".to_owned(), "small".to_owned()], 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_what_is_being_restored_waits_for_room_once() {
    let harness = Harness::new(100, |_| {});
    harness.put("a", &[("mark", "1"), ("estimate", "1"), ("actual", "10"), ("load_gate", "a")]);
    harness.put("busy", &[("mark", "1"), ("estimate", "15"), ("actual", "15"), ("run_gate", "busy")]);
    tokio::spawn(harness.cache.restore_resident());
    harness.mark("a").await.expect("loads");
    eventually("it notes", async || harness.has_noted()).await;
    let harness = harness.restarted_with(20, |config| config.room_timeout = Duration::from_millis(200)).await;
    let (gate, busy_gate) = (harness.backend.gate("a"), harness.backend.gate("busy"));
    tokio::spawn(harness.cache.restore_resident());
    eventually("the load", async || harness.loads() == 1).await;
    let cache = harness.cache.clone();
    let busy = tokio::spawn(async move { mark(&cache, "busy").await });
    eventually("a request that holds the room", async || harness.arrivals() == 1).await;
    let mut asked = Box::pin(harness.mark("a"));
    assert!(futures::poll!(&mut asked).is_pending(), "it has joined the load");
    let estimates = harness.backend.estimates.load(Ordering::SeqCst);
    gate.send(()).expect("it waits at its gate");
    assert_eq!(asked.await.expect_err("it is larger than was thought").kind(), ErrorKind::NoRoom);
    assert_eq!(harness.backend.estimates.load(Ordering::SeqCst), estimates, "no second load was tried");
    busy_gate.send(()).expect("it waits at its gate");
    busy.await.expect("no panic").expect("answers");
}

async fn pin(harness: &Harness, name: &str) {
    harness.cache.load(&ModelKey::of_model(name), LoadOverrides::default()).await.expect("loads");
}

/// Whether a model stays while others need more room than there is.
async fn stays(harness: &Harness, name: &str) -> bool {
    for other in ["c", "other", "a"] {
        harness.mark(other).await.expect("loads");
        if !ready(harness).await.contains(&name.to_owned()) {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_pinned_is_pinned_whoever_loads_it() {
    let harness = used().await;
    pin(&harness, "b").await;
    let harness = harness.restarted(20).await;
    harness.mark("b").await.expect("loads");
    tokio::spawn(harness.cache.restore_resident());
    eventually("what fits", async || ready(&harness).await == ["a", "b"]).await;
    assert!(stays(&harness, "b").await, "it was in memory already");

    let harness = harness.restarted(20).await;
    let gate = harness.backend.gate("b");
    let cache = harness.cache.clone();
    let asked = tokio::spawn(async move { mark(&cache, "b").await });
    eventually("the request's load", async || harness.loads() == 1).await;
    tokio::spawn(harness.cache.restore_resident());
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.send(()).expect("it waits at its gate");
    asked.await.expect("no panic").expect("loads");
    eventually("what fits", async || ready(&harness).await.len() == 2).await;
    assert!(stays(&harness, "b").await, "it was on its way already");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unloaded_while_it_waits_to_be_restored_is_not() {
    let harness = used().await;
    pin(&harness, "b").await;
    pin(&harness, "a").await;
    let harness = harness.restarted(100).await;
    let gates = ["a", "b"].map(|name| harness.backend.gate(name));
    tokio::spawn(harness.cache.restore_resident());
    eventually("the first load", async || harness.loads() == 1).await;
    let (first, second) = if harness.restoring().contains("\"a\"") { ("a", "b") } else { ("b", "a") };
    harness.cache.unload(&ModelKey::of_model(second), false).await.expect("nothing to do yet");
    drop(gates);
    eventually("those behind it", async || ready(&harness).await == [first, "c"]).await;
    assert_eq!(harness.loads(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unloaded_while_it_is_loaded_by_name_is_not_pinned() {
    let harness = used().await.restarted(20).await;
    let gate = harness.backend.gate("b");
    let cache = harness.cache.clone();
    let key = ModelKey::of_model("b");
    let loading = tokio::spawn(async move { cache.load(&ModelKey::of_model("b"), LoadOverrides::default()).await });
    eventually("the load", async || harness.loads() == 1).await;
    harness.cache.unload(&key, false).await.expect("nothing to do yet");
    gate.send(()).expect("it waits at its gate");
    loading.await.expect("no panic").expect("loads");
    // What took long to load is protected for a while.
    eventually("it leaves", async || !stays(&harness, "b").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_outlasts_a_load_that_fails() {
    let good = [("mark", "1"), ("estimate", "10"), ("actual", "10")];
    let harness = used().await;
    pin(&harness, "b").await;
    let harness = harness.restarted(100).await;
    harness.put("b", &[("fault", "load_error")]);
    tokio::spawn(harness.cache.restore_resident());
    eventually("the others", async || ready(&harness).await == ["a", "c"]).await;
    let harness = harness.restarted(20).await;
    harness.put("b", &good);
    tokio::spawn(harness.cache.restore_resident());
    eventually("what fits", async || ready(&harness).await.len() == 2).await;
    harness.mark("b").await.expect("is good again");
    assert!(stays(&harness, "b").await);
}

//! Loads and unloads of target models by name.

use std::collections::BTreeMap;
use std::time::Duration;

use inference::{Error, ErrorKind, InferenceService, LoadOverrides, ModelControl, ModelKey};

use crate::harness::{Harness, mark, request};
use crate::room::{eventually, ready};

fn key(name: &str) -> ModelKey {
    ModelKey::of_model(name)
}

async fn load(harness: &Harness, name: &str) -> Result<(), Error> {
    harness.cache.load(&key(name), LoadOverrides::default()).await
}

fn config(mark: &str) -> String {
    format!(
        r#"{{"backend": "scripted", "input": [{{"name": "x", "data_type": "TYPE_UINT8", "dims": [1]}}],
            "output": [{{"name": "mark", "data_type": "TYPE_UINT64", "dims": [1]}}],
            "parameters": {{"mark": {{"string_value": "{mark}"}}}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_by_name_fetches_and_an_unload_takes_out_of_memory() {
    let harness = Harness::new(100, |_| {});
    harness.put("a", &[("mark", "1")]);
    load(&harness, "a").await.expect("loads");
    load(&harness, "a").await.expect("is loaded");
    assert_eq!((ready(&harness).await, harness.loads()), (vec!["a".to_owned()], 1));
    assert_eq!(harness.mark("a").await.expect("from memory"), 1);
    harness.cache.unload(&key("a"), false).await.expect("unloads");
    assert!(!harness.cache.is_model_ready(&key("a")));
    assert_eq!(harness.mark("a").await.expect("a later request loads it again"), 1);
    harness.cache.unload(&key("nope"), false).await.expect("nothing to do");
    let error = load(&harness, "nope").await.expect_err("the store has none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.message(), "failed to load 'nope', failed to poll from model repository");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_by_name_takes_the_newest_version_while_the_old_one_serves() {
    let harness = Harness::new(100, |_| {});
    harness.put("a", &[("mark", "1")]);
    assert_eq!(harness.mark("a").await.expect("loads"), 1);
    let gate = harness.backend.gate("slow");
    harness.put("a", &[("mark", "2"), ("load_gate", "slow")]);
    assert_eq!(harness.mark("a").await.expect("requests ask no store"), 1);
    let cache = harness.cache.clone();
    let loading = tokio::spawn(async move { cache.load(&key("a"), LoadOverrides::default()).await });
    eventually("the second load", async || harness.loads() == 2).await;
    assert_eq!(harness.mark("a").await.expect("the old one serves"), 1);
    gate.send(()).expect("the load waits at its gate");
    loading.await.expect("no panic").expect("loads");
    assert_eq!(harness.mark("a").await.expect("the new one serves"), 2);

    harness.put("a", &[("mark", "3"), ("fault", "load_error")]);
    let error = load(&harness, "a").await.expect_err("the weights are bad");
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::InvalidArgument, "load failed for model 'a': the weights are bad")
    );
    assert_eq!(harness.mark("a").await.expect("the old one goes on"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overrides_hold_until_the_model_is_unloaded_and_are_never_evicted() {
    let harness = Harness::new(10, |config| config.room_timeout = Duration::from_millis(50));
    harness.put("a", &[("mark", "1"), ("estimate", "1"), ("actual", "1")]);
    harness.put("large", &[("estimate", "10"), ("actual", "10")]);
    let given = LoadOverrides { config: Some(config("7")), ..LoadOverrides::default() };
    harness.cache.load(&key("a"), given).await.expect("loads");
    assert_eq!(harness.mark("a").await.expect("as configured"), 7);
    let files = BTreeMap::from([("1/model".to_owned(), "weights".into())]);
    for name in ["a", "only/given"] {
        let given = LoadOverrides { config: Some(config("8")), files: files.clone(), prefetch: false };
        harness.cache.load(&key(name), given).await.expect("loads");
        assert_eq!(harness.mark(name).await.expect("as given"), 8);
    }
    let pinned = harness.cache.infer(request("a")).await.expect("answers");
    harness.cache.unload(&key("a"), false).await.expect("unloads");
    assert_eq!(harness.mark("a").await.expect("as the archive has it"), 1);
    drop(pinned);
    harness.cache.unload(&key("only/given"), false).await.expect("unloads");
    assert_eq!(harness.mark("only/given").await.expect_err("the store has none").kind(), ErrorKind::NotFound);
    eventually("room for the large one", async || mark(&harness.cache, "large").await.is_ok()).await;

    let error = harness
        .cache
        .load(&key("a"), LoadOverrides { files, ..LoadOverrides::default() })
        .await
        .expect_err("no config");
    assert!(error.message().starts_with("failed to load 'a', failed to poll from model repository"), "{error}");
    let given = LoadOverrides { config: Some("{\"max_batchsize\": 1}".to_owned()), ..LoadOverrides::default() };
    let error = harness.cache.load(&key("a"), given).await.expect_err("a typo");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().starts_with("load failed for model 'a': "), "{error}");
    assert!(error.message().contains("the given config") && error.message().contains("max_batchsize"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_loaded_by_name_stays_until_it_is_unloaded_unless_it_is_only_prefetched() {
    let harness = Harness::new(20, |_| {});
    for name in ["a", "b", "c", "d"] {
        harness.put(name, &[("mark", "1"), ("estimate", "10"), ("actual", "10")]);
    }
    // What took long to load is protected for a while; asked again and again, they get the room of what nobody asks for.
    let survives_others = async || {
        for name in ["b", "c", "d"] {
            harness.mark(name).await.expect("loads");
        }
        ready(&harness).await.contains(&"a".to_owned())
    };
    load(&harness, "a").await.expect("loads");
    assert!(survives_others().await);
    let prefetch = || LoadOverrides { prefetch: true, ..LoadOverrides::default() };
    harness.cache.load(&key("a"), prefetch()).await.expect("is loaded");
    eventually("it is pinned no longer", async || !survives_others().await).await;
    // What requests have loaded can be pinned as it is.
    harness.mark("a").await.expect("loads");
    let loads = harness.loads();
    load(&harness, "a").await.expect("is loaded");
    assert_eq!((harness.loads(), survives_others().await), (loads, true));
    harness.cache.unload(&key("a"), false).await.expect("unloads");
    harness.mark("a").await.expect("loads");
    eventually("unloaded, it is pinned no longer", async || !survives_others().await).await;

    let given = LoadOverrides { config: Some(config("7")), ..prefetch() };
    let error = harness.cache.load(&key("a"), given).await.expect_err("the store does not have it");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_settings_name_is_loaded_and_stays() {
    let harness = Harness::new(20, |_| {});
    for name in ["a", "b", "c"] {
        harness.put(name, &[("mark", "1"), ("estimate", "10"), ("actual", "10")]);
    }
    let targets = ["a", "nope"].map(|name| inference::TargetModel::new(name).expect("valid"));
    harness.cache.keep_target_models(targets.into()).await;
    assert_eq!(ready(&harness).await, ["a"]);
    for name in ["b", "c"] {
        harness.mark(name).await.expect("loads");
    }
    assert_eq!(ready(&harness).await, ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_settings_name_does_not_wait_for_what_cannot_be_had_now() {
    let harness = Harness::new(20, |_| {});
    for (name, bytes) in [("large", "30"), ("huge", "40"), ("a", "10")] {
        harness.put(name, &[("mark", "1"), ("estimate", bytes), ("actual", bytes)]);
    }
    let targets = ["large", "huge", "a"].map(|name| inference::TargetModel::new(name).expect("valid"));
    tokio::spawn(harness.cache.keep_target_models(targets.into()));
    eventually("the one that fits", async || ready(&harness).await == ["a"]).await;
}

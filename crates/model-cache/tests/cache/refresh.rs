//! Archives that change in the store while they serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use inference::{ErrorKind, InferenceService, ModelControl, ModelState};
use model_cache::{ModelCacheConfig, ReplaceWithoutRoom};

use crate::harness::{Harness, in_sequence, model_config, request};

const TARGET: &str = "a.tar.gz";

/// Asks every tenth of a second at least.
fn often(config: &mut ModelCacheConfig) {
    config.store_check_interval = Duration::from_millis(100);
}

fn start(budget: u64, change: impl FnOnce(&mut ModelCacheConfig)) -> Harness {
    let harness = Harness::new(budget, change);
    tokio::spawn(harness.cache.refresh_targets());
    harness
}

fn sized<'a>(mark: &'a str, bytes: &'a str) -> [(&'a str, &'a str); 3] {
    [("mark", mark), ("estimate", bytes), ("actual", bytes)]
}

/// Waits until `look` says yes.
async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !look().await {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_mark(harness: &Harness, expected: u64) {
    until(&format!("mark {expected}"), async || harness.mark(TARGET).await.expect("it serves") == expected).await;
}

/// The index's state of the archive, and why.
async fn indexed(harness: &Harness) -> (ModelState, String) {
    let index = harness.cache.index().await;
    let entry = index.into_iter().find(|entry| entry.name == TARGET).expect("indexed");
    (entry.state, entry.reason)
}

/// Asks without a pause until told to stop, and returns how many answers there were. All must be good.
fn ask_on(harness: &Harness, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<usize> {
    let (cache, stop) = (harness.cache.clone(), stop.clone());
    tokio::spawn(async move {
        let mut answers = 0;
        while !stop.load(Ordering::SeqCst) {
            cache.infer(request(TARGET)).await.expect("no request fails");
            answers += 1;
        }
        answers
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_archive_is_replaced_in_memory_while_it_serves() {
    let harness = start(1000, often);
    harness.put(TARGET, &sized("1", "100"));
    assert_eq!(harness.mark(TARGET).await.expect("it serves"), 1);
    let stop = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..8).map(|_| ask_on(&harness, &stop)).collect();
    for mark in ["2", "3"] {
        harness.put(TARGET, &sized(mark, "100"));
        until_mark(&harness, mark.parse().expect("a number")).await;
    }
    stop.store(true, Ordering::SeqCst);
    for asking in asking {
        assert!(asking.await.expect("no request fails") > 0);
    }
    assert_eq!(harness.loads(), 3, "each version once");
    assert_eq!(indexed(&harness).await, (ModelState::Ready, String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_archive_serves_until_its_requests_have_ended() {
    let harness = start(1000, often);
    let gate = harness.backend.gate("run");
    harness.put(TARGET, &[("mark", "1"), ("run_gate", "run")]);
    let cache = harness.cache.clone();
    let running = tokio::spawn(async move { cache.infer(request(TARGET)).await });
    until("the request runs", async || harness.arrivals() == 1).await;
    harness.delete(TARGET);
    until("it is being unloaded", async || indexed(&harness).await.0 == ModelState::Unloading).await;
    assert_eq!(harness.mark(TARGET).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
    drop(gate);
    running.await.expect("no panic").expect("it had begun before");
    until("nothing is left", async || harness.cache.index().await.is_empty()).await;
}

/// Long enough that no test is over before a store that lost all is believed.
fn seldom(config: &mut ModelCacheConfig) {
    config.store_check_interval = Duration::from_secs(4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_loses_all_at_once_is_not_believed_soon() {
    let harness = start(1000, seldom);
    let targets = ["a.tar.gz", "b.tar.gz", "c.tar.gz"];
    for target in targets {
        harness.put(target, &sized("1", "100"));
        assert_eq!(harness.mark(target).await.expect("it serves"), 1);
    }
    let put = Instant::now();
    let aside = harness.path("aside");
    std::fs::create_dir(&aside).expect("a folder");
    for target in targets {
        std::fs::rename(harness.path(target), aside.join(target)).expect("renamed");
    }
    until("the index tells", async || indexed(&harness).await.1.contains("does not have it any more")).await;
    // More than the pause after which one archive counts as deleted.
    tokio::time::sleep(Duration::from_millis(800)).await;
    for target in targets {
        std::fs::rename(aside.join(target), harness.path(target)).expect("renamed");
    }
    let back = put.elapsed();
    until("all is well", async || {
        let index = harness.cache.index().await;
        index.iter().all(|entry| (entry.state, &*entry.reason) == (ModelState::Ready, ""))
    })
    .await;
    // A machine that is slower than this may have come too late.
    if back < Duration::from_millis(3900) {
        assert_eq!(harness.loads(), 3, "they served all the time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_has_lost_all_is_believed_in_the_end() {
    let harness = start(1000, often);
    let targets = ["a.tar.gz", "b.tar.gz", "c.tar.gz"];
    for target in targets {
        harness.put(target, &sized("1", "100"));
        assert_eq!(harness.mark(target).await.expect("it serves"), 1);
    }
    harness.delete("a.tar.gz");
    until("one is gone", async || harness.mark("a.tar.gz").await.is_err()).await;
    harness.delete("b.tar.gz");
    harness.delete("c.tar.gz");
    until("nothing is left", async || harness.cache.index().await.is_empty()).await;
    for target in targets {
        assert_eq!(harness.mark(target).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_that_is_no_good_leaves_the_old_one_serving() {
    let harness = start(1000, often);
    harness.put(TARGET, &sized("1", "100"));
    assert_eq!(harness.mark(TARGET).await.expect("it serves"), 1);
    let broken: [&[(&str, &str)]; 2] = [&[("fault", "load_error")], &[("fault", "load_panic")]];
    for faults in broken {
        let put = Instant::now();
        harness.put(TARGET, faults);
        until("the index tells", async || !indexed(&harness).await.1.is_empty()).await;
        let (state, reason) = indexed(&harness).await;
        assert_eq!(state, ModelState::Ready, "{reason}");
        assert!(reason.contains("an older version serves"), "{reason}");
        assert_eq!(harness.mark(TARGET).await.expect("the old one serves"), 1);
        let loads = harness.loads();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let later = harness.loads();
        if put.elapsed() < Duration::from_secs(1) {
            assert_eq!(later, loads, "it is left alone for a while");
        }
        // Another content, or the next broken one would be known already.
        harness.put(TARGET, &sized("1", "100"));
        until("what is well is forgotten", async || indexed(&harness).await.1.is_empty()).await;
    }
    std::fs::write(harness.path(TARGET), "no archive").expect("written");
    until("the index tells", async || indexed(&harness).await.1.contains("gzip")).await;
    assert_eq!(harness.mark(TARGET).await.expect("the old one serves"), 1);
    harness.put(TARGET, &sized("2", "100"));
    until_mark(&harness, 2).await;
    assert_eq!(indexed(&harness).await, (ModelState::Ready, String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_version_that_served_comes_back_from_disk_while_the_new_one_is_no_good() {
    let harness = start(150, often);
    harness.put(TARGET, &sized("1", "100"));
    harness.put("b.tar.gz", &sized("9", "100"));
    assert_eq!(harness.mark(TARGET).await.expect("it serves"), 1);
    harness.put(TARGET, &[("fault", "load_error")]);
    until("the index tells", async || indexed(&harness).await.1.contains("the weights are bad")).await;
    assert_eq!(harness.mark("b.tar.gz").await.expect("takes its room"), 9);
    assert_eq!(harness.mark(TARGET).await.expect("from disk"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_both_the_old_version_is_kept() {
    let harness = start(150, often);
    harness.put(TARGET, &sized("1", "100"));
    assert_eq!(harness.mark(TARGET).await.expect("it serves"), 1);
    harness.put(TARGET, &sized("2", "100"));
    until("the index tells", async || indexed(&harness).await.1.contains("no room for")).await;
    assert_eq!(harness.mark(TARGET).await.expect("the old one serves"), 1);
    harness.put(TARGET, &sized("3", "40"));
    until_mark(&harness, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_both_requests_wait_in_a_gap() {
    let harness = start(150, |config| {
        often(config);
        config.replace_without_room = ReplaceWithoutRoom::Gap;
    });
    harness.put(TARGET, &sized("1", "100"));
    assert_eq!(harness.mark(TARGET).await.expect("it serves"), 1);
    let stop = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..8).map(|_| ask_on(&harness, &stop)).collect();
    harness.put(TARGET, &sized("2", "100"));
    until_mark(&harness, 2).await;
    // Its room is made before it turns out to be no good: the old one is loaded again.
    harness.put(TARGET, &[("fault", "load_error"), ("estimate", "100")]);
    until("the index tells", async || indexed(&harness).await.1.contains("the weights are bad")).await;
    until_mark(&harness, 2).await;
    // What can never fit leaves the old one in place, too.
    harness.put(TARGET, &sized("3", "1000"));
    until("the index tells", async || indexed(&harness).await.1.contains("it can never fit")).await;
    until_mark(&harness, 2).await;
    stop.store(true, Ordering::SeqCst);
    for asking in asking {
        assert!(asking.await.expect("no request fails") > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_that_was_in_vain_is_not_made_again() {
    let harness = start(150, |config| {
        often(config);
        config.replace_without_room = ReplaceWithoutRoom::Gap;
    });
    harness.put(TARGET, &sized("1", "100"));
    assert_eq!(harness.mark(TARGET).await.expect("it serves"), 1);
    let gate = harness.backend.gate("slow");
    // It seems to fit, and turns out to be too large for any budget.
    harness.put(TARGET, &[("load_gate", "slow"), ("estimate", "100"), ("actual", "1000")]);
    until("the gap", async || harness.loads() == 2).await;
    // Long enough to be seen by whoever looks what is in memory.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(gate);
    until("the index tells", async || {
        let index = harness.cache.index().await;
        index.iter().any(|entry| entry.state == ModelState::Ready && entry.reason.contains("it can never fit"))
    })
    .await;
    let loads = harness.loads();
    assert_eq!(loads, 3, "the old version was loaded again");
    // Several intervals, and more than the first pause after a failure.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(harness.mark(TARGET).await.expect("the old version serves"), 1);
    assert_eq!(harness.loads(), loads);
}

/// A model with sequences that end only when they are told to.
fn with_sequences(parameters: &[(&str, &str)]) -> String {
    model_config(parameters) + "sequence_batching { max_sequence_idle_microseconds: 3600000000 }\n"
}

/// The mark that answers a request of a sequence.
async fn mark_in_sequence(harness: &Harness, starts: bool, ends: bool) -> inference::Result<u64> {
    let response = harness.cache.infer(in_sequence(TARGET, starts, ends)).await?;
    Ok(response.output("mark").expect("declared").to_elements::<u64>().expect("UINT64")[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_that_begins_while_the_new_version_is_loaded_is_not_cut() {
    let harness = start(1000, often);
    harness.put_config(TARGET, &with_sequences(&[("mark", "1")]));
    assert_eq!(mark_in_sequence(&harness, true, true).await.expect("it serves"), 1);
    let gate = harness.backend.gate("new");
    harness.put_config(TARGET, &with_sequences(&[("mark", "2"), ("load_gate", "new")]));
    until("the new version's load", async || harness.loads() == 2).await;
    assert_eq!(mark_in_sequence(&harness, true, false).await.expect("a sequence begins"), 1);
    drop(gate);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(mark_in_sequence(&harness, false, false).await.expect("it goes on"), 1);
    }
    assert_eq!(indexed(&harness).await, (ModelState::Ready, String::new()), "nothing is wrong");
    assert_eq!(mark_in_sequence(&harness, false, true).await.expect("it ends"), 1);
    until("the new version", async || mark_in_sequence(&harness, true, true).await.expect("a sequence") == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unloaded_while_its_new_version_is_loaded_stays_unloaded() {
    let harness = start(1000, often);
    harness.put(TARGET, &sized("1", "100"));
    assert_eq!(harness.mark(TARGET).await.expect("it serves"), 1);
    let gate = harness.backend.gate("new");
    harness.put(TARGET, &[("mark", "2"), ("load_gate", "new")]);
    until("the new version's load", async || harness.loads() == 2).await;
    harness.cache.unload(&request(TARGET).model, false).await.expect("it is known");
    drop(gate);
    let is_in_memory = async || harness.cache.index().await.iter().any(|entry| entry.state == ModelState::Ready);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!is_in_memory().await, "nobody has asked for it");
    }
    assert_eq!(harness.mark(TARGET).await.expect("it is loaded for who asks"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_changes_nothing() {
    let harness = start(1000, often);
    harness.put(TARGET, &sized("1", "100"));
    assert_eq!(harness.mark(TARGET).await.expect("it serves"), 1);
    let elsewhere = harness.hide_store();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(harness.mark(TARGET).await.expect("it serves"), 1);
    assert_eq!(indexed(&harness).await, (ModelState::Ready, String::new()));
    drop(elsewhere);
    harness.put(TARGET, &sized("2", "100"));
    until_mark(&harness, 2).await;
}

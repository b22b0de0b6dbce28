//! What goes wrong in one archive stays there.

use std::time::Duration;

use inference::{ErrorKind, ModelControl, ModelState};

use crate::harness::{Harness, mark, model_config};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_fails_is_told_and_not_repeated_for_every_request() {
    let harness = Harness::new(100, |_| {});
    harness.put("bad", &[("fault", "load_error")]);
    harness.put("good", &[("mark", "1")]);
    for _ in 0..3 {
        let error = harness.mark("bad").await.expect_err("it cannot be loaded");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.message(), "load failed for model 'bad': the weights are bad");
    }
    assert_eq!(harness.loads(), 1);
    let index = harness.cache.index().await;
    assert!(
        index.iter().any(|e| e.name == "bad" && e.state == ModelState::Unavailable && e.reason.contains("weights"))
    );
    assert_eq!(harness.mark("good").await.expect("its neighbour is well"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_while_loading_is_an_error_of_that_archive() {
    let harness = Harness::new(10, |_| {});
    harness.put("bad", &[("fault", "load_panic"), ("estimate", "10")]);
    harness.put("good", &[("mark", "1"), ("estimate", "10"), ("actual", "10")]);
    assert_eq!(harness.mark("bad").await.expect_err("panics").kind(), ErrorKind::Internal);
    assert_eq!(harness.mark("good").await.expect("the room it held is free again"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_panics_while_it_runs_is_loaded_anew() {
    let harness = Harness::new(10, |_| {});
    harness.put("bad", &[("fault", "run_panic"), ("estimate", "10"), ("actual", "10")]);
    for expected_loads in 1..=2 {
        let error = harness.mark("bad").await.expect_err("panics");
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        assert_eq!(harness.loads(), expected_loads);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_hangs_leaves_the_others_their_slots() {
    let harness = Harness::new(100, |config| {
        config.load_timeout = Duration::from_millis(50);
        config.download_timeout = Duration::from_millis(50);
        config.room_timeout = Duration::from_millis(50);
        config.load_concurrency = std::num::NonZeroUsize::MIN;
    });
    let gate = harness.backend.gate("stuck");
    harness.put("stuck", &[("load_gate", "stuck"), ("mark", "1")]);
    harness.put("good", &[("mark", "2")]);
    assert_eq!(harness.mark("stuck").await.expect_err("overdue").kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(harness.mark("good").await.expect("the slot was given up"), 2);
    drop(gate);
    let mut landed = harness.mark("stuck").await;
    for _ in 0..400 {
        if landed.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        landed = harness.mark("stuck").await;
    }
    assert_eq!(landed.expect("it landed after all"), 1);
    assert_eq!(harness.loads(), 2, "there was never a second load of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_does_not_cancel_the_load() {
    let harness = Harness::new(100, |_| {});
    let gate = harness.backend.gate("slow");
    harness.put("slow", &[("load_gate", "slow"), ("mark", "1")]);
    let (first, second) = (harness.cache.clone(), harness.cache.clone());
    let first = tokio::spawn(async move { mark(&first, "slow").await });
    let second = tokio::spawn(async move { mark(&second, "slow").await });
    while harness.loads() == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    gate.send(()).expect("the load waits at its gate");
    assert_eq!(second.await.expect("no panic").expect("the other caller gets its answer"), 1);
    assert_eq!(harness.loads(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_not_built_in_is_named_with_those_that_are() {
    let harness = Harness::new(100, |_| {});
    harness.put_config("tf", &model_config(&[]).replace("scripted", "tensorflow"));
    let error = harness.mark("tf").await.expect_err("not built in");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("'tensorflow', which is not built in; built in are [\"scripted\", \"ensemble\"]"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registering_twice_or_unregistering_the_unknown_is_refused() {
    let harness = Harness::new(100, |_| {});
    let folder = tempfile::tempdir().expect("temporary");
    std::fs::create_dir(folder.path().join("1")).expect("writable");
    std::fs::write(folder.path().join("config.pbtxt"), model_config(&[("mark", "7")])).expect("writable");
    let control = &*harness.cache;
    assert_eq!(
        control.register("h", &folder.path().join("nope")).await.expect_err("no folder").kind(),
        ErrorKind::NotFound
    );
    control.register("h", folder.path()).await.expect("loads");
    assert!(control.is_registered("h"));
    assert_eq!(control.register("h", folder.path()).await.expect_err("twice").kind(), ErrorKind::AlreadyExists);
    control.unregister("h").await.expect("it is there");
    assert!(!control.is_registered("h"));
    assert_eq!(control.unregister("h").await.expect_err("gone").kind(), ErrorKind::NotFound);
}

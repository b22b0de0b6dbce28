//! How long an update waits for its loads. The clock stands still but where a test puts it forward.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use inference::{ModelControl, ModelKey};
use model_cache::{ModelCacheConfig, ModelControlMode};

use crate::harness::model_config;
use crate::repositories::{Repository, marked};

/// Loads one at a time, and waits for none longer than ten seconds.
fn one_at_a_time(config: &mut ModelCacheConfig) {
    config.load_concurrency = NonZeroUsize::MIN;
    config.load_timeout = Duration::from_secs(10);
    config.room_timeout = Duration::from_secs(1);
}

/// Lets other tasks and threads go on until something holds.
async fn meanwhile(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_load_has_a_time_limit_of_its_own_however_many_there_are() {
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    let configs = NAMES.map(|name| (name, model_config(&[("load_gate", name)])));
    let models = configs.each_ref().map(|(name, config)| (*name, config.as_str()));
    let repository = Repository::with(ModelControlMode::None, &models, one_at_a_time);
    let gates = NAMES.map(|name| repository.harness.backend.gate(name));
    let cache = repository.harness.cache.clone();
    let starting = tokio::spawn(async move { cache.load_repositories().await });
    for (index, gate) in gates.into_iter().enumerate() {
        meanwhile("the next load", || repository.harness.loads() == index + 1).await;
        tokio::time::advance(Duration::from_secs(8)).await;
        gate.send(()).expect("the load waits at its gate");
    }
    starting.await.expect("no panic").expect("none of them took longer than 10 s, though all of them took 40 s");
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_overdue_is_not_waited_for_and_goes_on() {
    let stuck = model_config(&[("load_gate", "stuck")]);
    let models = [("good", marked("1")), ("stuck", stuck)];
    let models = models.each_ref().map(|(name, config)| (*name, config.as_str()));
    let repository = Repository::with(ModelControlMode::None, &models, one_at_a_time);
    let gate = repository.harness.backend.gate("stuck");
    let cache = repository.harness.cache.clone();
    cache.accept();
    let starting = tokio::spawn(async move { cache.load_repositories().await });
    meanwhile("both loads", || repository.harness.loads() == 2).await;
    tokio::time::advance(Duration::from_secs(11)).await;
    let error = starting.await.expect("no panic").expect_err("one is late");
    assert!(
        error.message().contains("model 'stuck' takes longer than --load-timeout to load; the load goes on"),
        "{error}"
    );
    let is_ready = |name: &str| repository.harness.cache.is_model_ready(&ModelKey::of_model(name));
    assert!(is_ready("good") && !is_ready("stuck") && !repository.harness.cache.is_server_ready());
    gate.send(()).expect("the load waits at its gate");
    meanwhile("the end of the load", || is_ready("stuck") && repository.harness.cache.is_server_ready()).await;
}

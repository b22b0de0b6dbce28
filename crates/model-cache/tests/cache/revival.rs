//! Models of repositories that crash are loaded anew, and only those.

use std::time::Duration;

use inference::{ErrorKind, InferRequest, InferenceService, ModelKey, NamedTensor, Shape, Tensor};
use model_cache::{ModelCache, ModelControlMode};

use crate::harness::{mark_of, model_config};
use crate::repositories::{Repository, ensemble};
use crate::room::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_crashes_is_loaded_anew() {
    let models = [("a", model_config(&[("fault", "run_panic")])), ("outer", ensemble("a"))];
    let repository =
        Repository::new(ModelControlMode::None, &models.each_ref().map(|(name, config)| (*name, config.as_str())));
    repository.start().await.expect("loads");
    let crashes = async || repository.mark("outer").await.is_err_and(|error| error.kind() == ErrorKind::Internal);
    for expected_loads in 2..4 {
        eventually("an instance that can crash", crashes).await;
        eventually("the next load", async || repository.harness.loads() >= expected_loads).await;
    }
}

/// A model that takes the mark of another one.
fn second(parameters: &[(&str, &str)]) -> String {
    model_config(parameters).replace("\"x\" data_type: TYPE_UINT8", "\"m\" data_type: TYPE_UINT64")
}

const BOTH: &str = r#"platform: "ensemble" input [{ name: "x" data_type: TYPE_UINT8 dims: [1] }]
    output [{ name: "mark" data_type: TYPE_UINT64 dims: [1] }]
    ensemble_scheduling { step [
        { model_name: "slow" input_map { key: "x" value: "x" } output_map { key: "mark" value: "between" } },
        { model_name: "second" input_map { key: "m" value: "between" } output_map { key: "mark" value: "mark" } }
    ] }"#;

async fn ask_second(cache: &ModelCache) -> Result<(), ErrorKind> {
    let input = NamedTensor::new("m", Tensor::from_vec(Shape::from([1]), vec![0u64]).expect("valid"));
    let request = InferRequest { model: ModelKey::of_model("second"), inputs: vec![input], ..InferRequest::default() };
    cache.infer(request).await.map(drop).map_err(|error| error.kind())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_still_hold_what_crashed_do_not_have_its_successor_loaded_anew() {
    let crashes = second(&[("fault", "run_panic")]);
    let slow = model_config(&[("run_gate", "slow")]);
    let models = [("slow", slow.as_str()), ("second", &crashes), ("both", BOTH)];
    let repository = Repository::new(ModelControlMode::None, &models);
    let gate = repository.harness.backend.gate("slow");
    repository.start().await.expect("loads");
    let loads = repository.harness.loads();
    repository.put("second", &second(&[("mark", "2")]));

    let cache = repository.harness.cache.clone();
    let old = tokio::spawn(async move { mark_of(&cache, "both").await });
    eventually("the first step", async || repository.harness.arrivals() == 1).await;
    // It crashes, and many notice at once, again and again until the next load is there.
    let clients = (0..4).map(|_| repository.harness.cache.clone()).map(|cache| {
        tokio::spawn(async move {
            while ask_second(&cache).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
    });
    futures::future::join_all(clients).await;
    assert_eq!(repository.harness.loads(), loads + 1, "one load for one crash");

    gate.send(()).expect("the first step waits at its gate");
    old.await.expect("no panic").expect_err("its second step has crashed");
    drop(gate);
    eventually("the ensemble with the new model", async || repository.mark("both").await.ok() == Some(2)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(repository.harness.loads(), loads + 1, "what crashed had been replaced already");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_that_was_left_with_what_crashed_is_loaded_anew_by_itself() {
    let models = [("a", model_config(&[("fault", "run_panic")])), ("outer", ensemble("a"))];
    let models = models.each_ref().map(|(name, config)| (*name, config.as_str()));
    let second = Duration::from_secs(1);
    let repository = Repository::with(ModelControlMode::None, &models, |config| config.load_timeout = second);
    repository.start().await.expect("loads");
    let gate = repository.harness.backend.gate("late");
    repository.put("a", &model_config(&[("mark", "2"), ("load_gate", "late")]));
    repository.mark("outer").await.expect_err("its member crashes");
    // The ensemble is not kept waiting: it is loaded with what there is.
    repository.shows("a 1 READY model 'a' takes longer than --load-timeout").await;
    gate.send(()).expect("the load waits at its gate");
    eventually("the new model", async || repository.mark("a").await.ok() == Some(2)).await;
    eventually("the ensemble with it", async || repository.mark("outer").await.ok() == Some(2)).await;
    assert_eq!(repository.harness.loads(), 2, "the member was well");
}

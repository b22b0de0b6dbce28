//! Runs that nobody waits for any more: they are interrupted, their instances are free at once, and others go on.

mod fake;
mod properties;
#[path = "../setup/mod.rs"]
mod setup;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use inference::{
    CancelCause, DataType, DynamicBatching, EnsembleSpec, ErrorKind, InferRequest, InferenceService, ModelSpec,
    Parameter, SequenceBatching, SequenceStrategy, Shape, StepSpec, WarmupData, WarmupInput, WarmupSample,
};
use scheduler::{Ensemble, ModelMetrics, SchedulerConfig, WarmupFiles, ensemble_plan, warm_up};
use tokio::time::advance;

use fake::{BAD, CONFIG, ENDLESS, begin, info, loaded, model, request, soon, spec, y};

fn batching(size: u32) -> ModelSpec {
    let batching = DynamicBatching {
        preferred_batch_sizes: vec![size],
        max_queue_delay: Duration::from_millis(10),
        ..DynamicBatching::default()
    };
    ModelSpec { dynamic_batching: Some(batching), ..spec() }
}

fn sequences() -> ModelSpec {
    let sequences = SequenceBatching {
        strategy: SequenceStrategy::Direct { max_queue_delay: Duration::ZERO, minimum_slot_utilization: 0.0 },
        max_idle: Duration::from_secs(60),
        controls: Vec::new(),
        states: Vec::new(),
    };
    ModelSpec { sequence_batching: Some(sequences), max_batch_size: 1, ..spec() }
}

fn of_sequence(x: i32, starts: bool) -> InferRequest {
    let mut request = request(&[x]);
    request.parameters.insert("sequence_id".to_owned(), Parameter::Int64(7));
    request.parameters.insert("sequence_start".to_owned(), Parameter::Bool(starts));
    request
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_ends_its_run() {
    for spec in [spec(), batching(1)] {
        let (model, stage) = model(spec, CONFIG, 1);
        let mut gone = model.infer(request(&[ENDLESS]));
        begin(&mut gone).await;
        stage.until_running(1).await;
        drop(gone);
        assert_eq!(y(&soon(model.infer(request(&[1]))).await.expect("the instance is free")), [1]);
        let runs = stage.runs.lock().clone();
        assert_eq!(runs.len(), 2, "it is not tried again: {runs:?}");
        assert_eq!(runs[0].cause, Some(CancelCause::Abandoned));
        assert!(model.is_usable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_its_run() {
    let config = SchedulerConfig { infer_timeout: Duration::from_millis(50), ..CONFIG };
    for (spec, in_sequence) in [(spec(), false), (batching(1), false), (sequences(), true)] {
        let ask = |x| if in_sequence { of_sequence(x, true) } else { request(&[x]) };
        let (model, stage) = model(spec, config, 1);
        let mut late = model.infer(ask(ENDLESS));
        begin(&mut late).await;
        stage.until_running(1).await;
        advance(Duration::from_millis(51)).await;
        let error = soon(late).await.expect_err("its time is over");
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert!(error.message().contains("--infer-timeout"), "{error}");
        assert_eq!(y(&soon(model.infer(ask(1))).await.expect("the instance is free")), [1]);
        assert_eq!(stage.runs.lock()[0].cause, Some(CancelCause::Overdue));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_on_until_the_last_of_its_requests_is_given_up() {
    let (model, stage) = model(batching(3), CONFIG, 1);
    let [mut first, mut second, mut third] = [[1], [ENDLESS], [3]].map(|rows| model.infer(request(&rows)));
    for waiting in [&mut first, &mut second, &mut third] {
        begin(waiting).await;
    }
    stage.until_running(1).await;
    drop(second);
    drop(first);
    assert_eq!(stage.runs.lock()[0].values, [1, ENDLESS, 3]);
    assert!(stage.runs.lock()[0].goes_on(), "the third waits");
    begin(&mut third).await;
    drop(third);
    stage.until(|runs| runs[0].over).await;
    assert_eq!(y(&soon(model.infer(request(&[1, 2, 3]))).await.expect("the instance is free")), [1, 2, 3]);
    assert_eq!(stage.runs.lock().len(), 2);
}

/// The batch fails for the sake of one; of those that then run alone, the one whose client goes away is ended, and only that.
#[tokio::test(start_paused = true)]
async fn a_request_that_runs_alone_after_its_batch_has_failed_is_ended_alone() {
    let (model, stage) = model(batching(3), CONFIG, 1);
    let [mut bad, mut gone, mut stays] = [[BAD], [ENDLESS], [3]].map(|rows| model.infer(request(&rows)));
    for waiting in [&mut bad, &mut gone, &mut stays] {
        begin(waiting).await;
    }
    stage.until_running(1).await;
    drop(gone);
    assert_eq!(y(&soon(stays).await.expect("runs alone")), [3]);
    assert_eq!(y(&soon(bad).await.expect("alone it is good")), [BAD]);
    let runs = stage.runs.lock().clone();
    let values: Vec<_> = runs.iter().map(|run| run.values.clone()).collect();
    assert_eq!(values, [vec![BAD, ENDLESS, 3], vec![BAD], vec![ENDLESS], vec![3]]);
    assert_eq!(runs.iter().map(|run| run.interrupted).collect::<Vec<_>>(), [false, false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_sequence_goes_on_without_a_request_that_was_cancelled_and_not_without_its_start() {
    let (model, stage) = model(sequences(), CONFIG, 1);
    soon(model.infer(of_sequence(1, true))).await.expect("runs");
    let mut gone = model.infer(of_sequence(ENDLESS, false));
    begin(&mut gone).await;
    stage.until_running(1).await;
    drop(gone);
    assert_eq!(y(&soon(model.infer(of_sequence(2, false))).await.expect("the sequence goes on")), [2]);

    let mut start = model.infer(of_sequence(ENDLESS, true));
    begin(&mut start).await;
    stage.until_running(1).await;
    let mut behind = model.infer(of_sequence(3, false));
    begin(&mut behind).await;
    drop(start);
    let error = soon(behind).await.expect_err("it has no start");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("timed out or was cancelled; start the sequence again"), "{error}");
    let error = soon(model.infer(of_sequence(4, false))).await.expect_err("it has no start");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(!model.is_busy());
    soon(model.infer(of_sequence(5, true))).await.expect("starts anew");
}

#[tokio::test(start_paused = true)]
async fn an_ensemble_that_is_given_up_ends_the_runs_of_its_steps() {
    let mut ensemble = ModelSpec { name: "e".into(), ..spec() };
    ensemble.outputs[0].name = "left".into();
    ensemble.outputs.push(inference::OutputSpec { name: "right".into(), ..ensemble.outputs[0].clone() });
    let step = |name: &str, output: &str| StepSpec {
        model: name.into(),
        version: None,
        inputs: [("x".into(), "x".into())].into(),
        outputs: [("y".into(), output.into())].into(),
    };
    ensemble.ensemble = Some(EnsembleSpec::new(vec![step("l", "left"), step("r", "right")]));
    let member = spec();
    let plan = ensemble_plan::plan(&ensemble, |_, _| Some(&member)).expect("consistent");
    let [(left, left_stage), (right, right_stage)] = [(); 2].map(|()| model(spec(), CONFIG, 1));
    let steps: Vec<Arc<dyn InferenceService>> = vec![left.clone(), right.clone()];
    let ensemble = Ensemble::new(info(ensemble), plan, steps, CONFIG, ModelMetrics::new("e", 1));
    let mut gone = ensemble.infer(request(&[ENDLESS]));
    begin(&mut gone).await;
    left_stage.until_running(1).await;
    right_stage.until_running(1).await;
    drop(gone);
    for model in [left, right] {
        soon(model.infer(request(&[1]))).await.expect("the instance is free");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_given_up_ends_its_run() {
    let (model, stage) = model(ModelSpec { decoupled: true, ..spec() }, CONFIG, 1);
    let mut gone = model.infer_stream(request(&[ENDLESS]));
    begin(&mut gone.next()).await;
    stage.until_running(1).await;
    drop(gone);
    let mut next = model.infer_stream(request(&[1]));
    assert_eq!(y(&soon(next.next()).await.expect("an answer").expect("the instance is free")), [1]);
}

/// In real time: loads have a thread of their own.
#[tokio::test]
async fn a_warm_up_that_takes_too_long_ends() {
    for decoupled in [false, true] {
        let data = WarmupData::File("endless".into());
        let x = WarmupInput { name: "x".into(), datatype: DataType::Int32, dims: Shape::from([1]), data };
        let sample = WarmupSample { name: "slow".to_owned(), batch_size: 1, count: 1, inputs: vec![x] };
        let spec = ModelSpec { warmup: vec![sample], decoupled, ..spec() };
        let files = WarmupFiles::from([("endless".into(), ENDLESS.to_le_bytes().to_vec().into())]);
        let (mut loaded, stage) = loaded(1, |_| {});
        let until = std::time::Instant::now() + Duration::from_millis(100);
        let warming = tokio::task::spawn_blocking(move || warm_up(&spec, &mut loaded, &files, Some(until)));
        let error = warming.await.expect("no panic").expect_err("it never ends by itself");
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert!(error.message().contains("--load-timeout"), "{error}");
        stage.until(|runs| runs.iter().all(|run| run.over)).await;
        assert_eq!(stage.runs.lock()[0].cause, Some(CancelCause::Overdue));
    }
}

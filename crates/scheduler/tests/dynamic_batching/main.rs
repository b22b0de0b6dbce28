//! Models with dynamic batching, from the outside: who runs with whom, when, and what each is told.

mod failures;
mod fake;
mod policies;
mod properties;
#[path = "../setup/mod.rs"]
mod setup;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::join_all;
use inference::{
    BatchInput, BatchInputKind, BatchOutput, DataType, DynamicBatching, EnsembleSpec, InferenceService, ModelSpec,
    NamedTensor, RaggedBatching, Shape, StepSpec, Tensor,
};
use scheduler::{Ensemble, ModelMetrics, SchedulerConfig, ensemble_plan};
use tokio::time::Instant;

use fake::{CONFIG, assert_echoes, echo, gated, info, model, ms, recording, request, spec, values, wide, with};

fn delay(milliseconds: u64) -> DynamicBatching {
    DynamicBatching { max_queue_delay: ms(milliseconds), ..DynamicBatching::default() }
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_each_other_as_long_as_the_delay_and_no_longer_than_needed() {
    let (model, seen) = recording(delay(10));
    // Rows of each request, and after how many milliseconds all have run.
    let cases: [(&[&[i32]], u64); 4] =
        [(&[&[1], &[2, 3]], 10), (&[&[1], &[2], &[3], &[4]], 0), (&[&[1]], 10), (&[&[1, 2, 3], &[4, 5]], 10)];
    for (rows, expected) in cases {
        let begin = Instant::now();
        let requests: Vec<_> = rows.iter().map(|rows| request(rows)).collect();
        let responses = join_all(requests.iter().map(|request| model.infer(request.clone()))).await;
        assert_eq!(begin.elapsed().as_millis(), u128::from(expected), "{rows:?}");
        for (response, request) in responses.iter().zip(&requests) {
            assert_echoes(response.as_ref().expect("runs"), request);
        }
    }
    let expected: [&[i32]; 5] = [&[1, 2, 3], &[1, 2, 3, 4], &[1], &[1, 2, 3], &[4, 5]];
    assert_eq!(*seen.lock(), expected);
}

#[tokio::test(start_paused = true)]
async fn without_a_delay_those_run_together_that_an_instance_finds_waiting() {
    let (model, seen, open) = gated(DynamicBatching::default(), CONFIG);
    let mut running: Vec<_> = [1, 2, 3, 4, 5].map(|row| model.infer(request(&[row]))).into();
    for running in &mut running {
        assert!(running.now_or_never().is_none());
    }
    for _ in 0..2 {
        open.send(()).expect("held");
    }
    for response in join_all(running).await {
        response.expect("runs");
    }
    assert_eq!(*seen.lock(), [vec![1], vec![2, 3, 4, 5]]);
}

#[tokio::test(start_paused = true)]
async fn a_preferred_size_runs_at_once() {
    let (model, seen) = recording(DynamicBatching { preferred_batch_sizes: vec![2], ..delay(10) });
    let begin = Instant::now();
    join_all([1, 2].map(|row| model.infer(request(&[row])))).await;
    assert_eq!(begin.elapsed(), ms(0));
    join_all([3, 4, 5].map(|row| model.infer(request(&[row])))).await;
    assert_eq!(begin.elapsed(), ms(10), "the third has nobody to run with");
    assert_eq!(*seen.lock(), [vec![1, 2], vec![3, 4], vec![5]]);
}

#[tokio::test(start_paused = true)]
async fn only_requests_of_equal_inputs_and_parameters_share_a_batch() {
    let (model, seen) = recording(delay(10));
    let mut with_option = request(&[7]);
    let o = Tensor::from_vec(Shape::from([1, 1]), vec![0i32]).expect("fits");
    with_option.inputs.push(NamedTensor::new("o", o));
    let requests = [
        request(&[1]),
        wide(&[2, 3], 2),
        with_option,
        with(request(&[4]), "temperature", 1),
        wide(&[5, 6], 2),
        with(with(request(&[8]), "timeout", 90), "sequence_id", 3),
    ];
    let responses = join_all(requests.iter().map(|request| model.infer(request.clone()))).await;
    for (response, request) in responses.iter().zip(&requests) {
        assert_echoes(response.as_ref().expect("runs"), request);
    }
    assert_eq!(*seen.lock(), [vec![1, 8], vec![2, 3, 5, 6], vec![7], vec![4]]);
}

/// What the model sees of ragged requests: together, and each alone after that has failed.
#[tokio::test(start_paused = true)]
async fn ragged_requests_share_a_batch_in_one_dimension() {
    let mut spec = spec(delay(10));
    spec.outputs.truncate(1);
    spec.ragged = RaggedBatching {
        inputs: vec!["x".into()],
        batch_inputs: vec![BatchInput {
            kind: BatchInputKind::AccumulatedElementCount,
            targets: vec!["ends".into()],
            datatype: DataType::Int32,
            source: "x".into(),
        }],
        batch_outputs: vec![BatchOutput { targets: vec!["y".into()], source: "x".into() }],
    };
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let record = seen.clone();
    let model = model(spec, CONFIG, 1, move |request| {
        let x = request.input("x").expect("checked").clone();
        let ends = request.input("ends").expect("made").to_elements::<i32>().expect("INT32").into_owned();
        record.lock().push((values(request), ends));
        match values(request).contains(&13) {
            true => Err(inference::Error::internal("13 is no number").from_model()),
            false => Ok(inference::InferResponse::new(vec![NamedTensor::new("y", x)])),
        }
    });
    for (bad, expected) in [(7, vec![(vec![1, 2, 3, 7], vec![2, 4])]), (13, vec![(vec![1, 2, 3, 13], vec![2, 4])])] {
        let requests = [wide(&[1, 2], 2), wide(&[3, bad], 1)];
        let responses = join_all(requests.iter().map(|request| model.infer(request.clone()))).await;
        assert_eq!(responses[1].is_err(), bad == 13);
        for (response, request) in responses.iter().zip(&requests).filter(|(response, _)| response.is_ok()) {
            assert_eq!(response.as_ref().expect("runs").output("y"), request.input("x"));
        }
        let alone = if bad == 13 { vec![(vec![1, 2], vec![2]), (vec![3, 13], vec![2])] } else { vec![] };
        assert_eq!(std::mem::take(&mut *seen.lock()), [expected, alone].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn each_gets_the_outputs_that_it_wants() {
    let (model, _) = recording(delay(10));
    let wants = |names: &[&str]| inference::InferRequest {
        outputs: names.iter().map(|name| (*name).into()).collect(),
        ..request(&[1])
    };
    let responses = join_all([wants(&["y"]), wants(&["z"])].map(|request| model.infer(request))).await;
    let names: Vec<Vec<_>> = responses
        .into_iter()
        .map(|response| response.expect("runs").outputs.into_iter().map(|output| output.name.to_string()).collect())
        .collect();
    assert_eq!(names, [["y"], ["z"]]);
}

/// In real time: a paused clock stands still while a model runs.
#[tokio::test]
async fn responses_keep_the_order_where_it_is_promised() {
    for (preserve_ordering, expected) in [(true, vec![0, 1]), (false, vec![1, 0])] {
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(parking_lot::Mutex::new(gate));
        let batching = DynamicBatching { preserve_ordering, ..DynamicBatching::default() };
        let model = model(spec(batching), CONFIG, 2, move |request| {
            if values(request)[0] == 0 {
                gate.lock().recv().expect("opened");
            }
            Ok(echo(request))
        });
        let order = parking_lot::Mutex::new(Vec::new());
        let ask = |row: i32| {
            let (model, order) = (&model, &order);
            async move {
                model.infer(request(&[row])).await.expect("runs");
                order.lock().push(row);
            }
        };
        let (mut slow, mut fast) = (Box::pin(ask(0)), Box::pin(ask(1)));
        assert!((&mut slow).now_or_never().is_none());
        tokio::task::yield_now().await;
        let patience = if preserve_ordering { ms(100) } else { ms(10_000) };
        let early = tokio::time::timeout(patience, &mut fast).await.is_ok();
        assert_eq!(early, !preserve_ordering);
        open.send(()).expect("held");
        slow.await;
        if !early {
            fast.await;
        }
        assert_eq!(*order.lock(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_cancelled_leaves_before_its_batch_forms() {
    let (model, seen) = recording(delay(10));
    let mut gone = model.infer(request(&[1]));
    assert!((&mut gone).now_or_never().is_none());
    let mut stays = model.infer(request(&[2]));
    assert!((&mut stays).now_or_never().is_none());
    tokio::time::advance(ms(5)).await;
    drop(gone);
    stays.await.expect("runs");
    assert_eq!(*seen.lock(), [vec![2]]);
}

/// The token is dropped with the instance.
#[tokio::test(start_paused = true)]
async fn a_model_that_nobody_holds_is_freed_although_its_delay_is_long() {
    let token = Arc::new(());
    let held = token.clone();
    let model = model(spec(delay(1_000_000)), SchedulerConfig { infer_timeout: ms(5_000_000_000), ..CONFIG }, 1, {
        move |request| {
            let _held = &held;
            Ok(echo(request))
        }
    });
    let mut waiting = model.infer(request(&[1]));
    assert!((&mut waiting).now_or_never().is_none());
    tokio::time::sleep(ms(1)).await;
    drop(waiting);
    drop(model);
    tokio::time::sleep(ms(1)).await;
    assert_eq!(Arc::strong_count(&token), 1, "neither a task nor a queue holds it");
}

#[tokio::test(start_paused = true)]
async fn the_same_step_of_different_ensemble_requests_runs_once() {
    let (model, seen) = recording(delay(10));
    let map = |from: &str, to: &str| [(from.into(), to.into())].into();
    let step = StepSpec { model: "m".into(), version: None, inputs: map("x", "x"), outputs: map("y", "y") };
    let mut inner = spec(DynamicBatching::default());
    inner.inputs.truncate(1);
    inner.outputs.truncate(1);
    let ensemble = Some(EnsembleSpec::new(vec![step]));
    let spec = ModelSpec { name: "e".into(), ensemble, dynamic_batching: None, ..inner };
    let member = model.info().spec.clone();
    let plan = ensemble_plan::plan(&spec, |name, _| (name == &*member.name).then_some(&*member)).expect("right");
    let ensemble = Ensemble::new(info(spec), plan, vec![model], CONFIG, ModelMetrics::new("e", 1));
    let responses = join_all([1, 2, 3].map(|row| ensemble.infer(request(&[row])))).await;
    for (row, response) in (1..).zip(responses) {
        let y =
            response.expect("runs").output("y").expect("returned").to_elements::<i32>().expect("INT32").into_owned();
        assert_eq!(y, [row]);
    }
    assert_eq!(*seen.lock(), [vec![1, 2, 3]]);
}

#[tokio::test(start_paused = true)]
async fn a_model_without_a_batch_dimension_runs_one_request_at_a_time() {
    let mut spec = spec(delay(10));
    spec.max_batch_size = 0;
    spec.outputs.truncate(1);
    let runs = Arc::new(AtomicUsize::new(0));
    let count = runs.clone();
    let model = model(spec, CONFIG, 1, move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        let x = request.input("x").expect("checked").clone();
        Ok(inference::InferResponse::new(vec![NamedTensor::new("y", x)]))
    });
    let flat = |row: i32| {
        let x = Tensor::from_vec(Shape::from([1]), vec![row]).expect("fits");
        inference::InferRequest { inputs: vec![NamedTensor::new("x", x)], ..request(&[row]) }
    };
    let begin = Instant::now();
    for response in join_all([1, 2, 3].map(|row| model.infer(flat(row)))).await {
        response.expect("runs");
    }
    assert_eq!((runs.load(Ordering::Relaxed), begin.elapsed()), (3, ms(0)), "there is nothing to wait for");
}

/// Many callers on several threads, some of which go away: everybody else gets its own rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_everybody_gets_its_own_answer() {
    let seen = Arc::new(AtomicUsize::new(0));
    let most = seen.clone();
    let batching = DynamicBatching { max_queue_delay: std::time::Duration::from_micros(200), ..Default::default() };
    let model = model(spec(batching), CONFIG, 2, move |request| {
        most.fetch_max(values(request).len(), Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_micros(100));
        Ok(echo(request))
    });
    let client = |client: i32| {
        let model = model.clone();
        tokio::spawn(async move {
            for turn in 0..100 {
                let first = client * 1000 + turn;
                let request = request(&(first..=first + turn % 3).collect::<Vec<_>>());
                let answer = model.infer(request.clone());
                if turn % 10 == 9 {
                    let _ = tokio::time::timeout(std::time::Duration::from_micros(50), answer).await;
                } else {
                    assert_echoes(&answer.await.expect("runs"), &request);
                }
            }
        })
    };
    for client in (0..16).map(client).collect::<Vec<_>>() {
        client.await.expect("no panic");
    }
    assert!((2..=4).contains(&seen.load(Ordering::Relaxed)), "some ran together, never too many");
}

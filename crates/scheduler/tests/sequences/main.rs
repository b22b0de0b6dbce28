//! Models whose requests form sequences, from the outside: where each runs, what the model is told, and what it keeps.

mod fake;
mod losses;
mod properties;
#[path = "../setup/mod.rs"]
mod setup;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::join_all;
use inference::{InferenceService, NamedTensor, Parameter, Shape, Tensor};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::Instant;

use fake::{CONFIG, Row, append, direct, gated, listing, model, ms, oldest, request, spec, y};

fn row(id: u64, marks: &str, x: i32) -> Row {
    Row { ready: true, starts: marks.contains('s'), ends: marks.contains('e'), id, x }
}

fn nobody() -> Row {
    Row { ready: false, starts: false, ends: false, id: 0, x: 0 }
}

#[tokio::test(start_paused = true)]
async fn a_sequence_keeps_its_row_its_instance_and_its_state() {
    let (model, seen) = listing(direct(1.0, 10), 2);
    // Sequences take turns: the first row of the first instance, the first row of the second, and so on.
    let send = |requests: Vec<_>| join_all(requests.into_iter().map(|request| model.infer(request)));
    let answers = send(vec![request(1, "s", 10), request(2, "s", 20), request(3, "s", 30)]).await;
    assert_eq!(answers.iter().map(|answer| y(answer.as_ref().expect("runs"))).collect::<Vec<_>>(), [[10], [20], [30]]);
    let answers = send(vec![request(3, "", 31), request(2, "e", 21)]).await;
    assert_eq!(
        answers.iter().map(|answer| y(answer.as_ref().expect("runs"))).collect::<Vec<_>>(),
        [[30, 31], [20, 21]]
    );
    let answers = send(vec![request(4, "s", 40), request(1, "e", 11)]).await;
    assert_eq!(y(answers[0].as_ref().expect("runs")), [40]);
    assert_eq!(y(answers[1].as_ref().expect("runs")), [10, 11], "shapes differ, so they did not share a batch");
    let mut seen = seen.lock().clone();
    seen.sort_by_key(|(instance, _)| *instance);
    let expected = [
        (0, vec![row(1, "s", 10), row(3, "s", 30)]),
        (0, vec![nobody(), row(3, "", 31)]),
        (0, vec![row(1, "e", 11), nobody()]),
        (1, vec![row(2, "s", 20)]),
        (1, vec![row(2, "e", 21)]),
        (1, vec![row(4, "s", 40)]),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn candidates_run_together_and_their_requests_in_order() {
    let (model, seen) = listing(oldest(3, 10), 1);
    let sent = [(1, "s", 10), (1, "", 11), (2, "s", 20), (1, "e", 12), (3, "se", 30), (4, "se", 40)];
    let begin = Instant::now();
    let answers = join_all(sent.map(|(id, marks, x)| model.infer(request(id, marks, x)))).await;
    let answers: Vec<_> = answers.iter().map(|answer| y(answer.as_ref().expect("runs"))).collect();
    assert_eq!(answers, [vec![10], vec![10, 11], vec![20], vec![10, 11, 12], vec![30], vec![40]]);
    assert_eq!(begin.elapsed(), ms(10), "what waited for the others has waited for long enough");
    let batches: Vec<_> = seen.lock().iter().map(|(_, rows)| rows.clone()).collect();
    assert_eq!(batches[0], [row(1, "s", 10), row(2, "s", 20), row(3, "se", 30)]);
    let mut rest: Vec<i32> = batches[1..].iter().flatten().map(|row| row.x).collect();
    rest.sort_unstable();
    assert_eq!(rest, [11, 12, 40]);
}

/// A state that is a part of a whole batch's tensor would keep all of that in memory.
#[tokio::test(start_paused = true)]
async fn states_that_are_copied_out_of_a_batch_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let (model, _) = metrics::with_local_recorder(&recorder, || listing(direct(1.0, 10), 1));
    let copies = |count: u64| {
        let line = format!("panoply_tensor_copies_total{{reason=\"sequence_state\"}} {count}\n");
        let scrape = recorder.handle().render();
        assert!(scrape.contains(&line), "{line}{scrape}");
    };
    model.infer(request(1, "s", 10)).await.expect("runs");
    copies(0);
    join_all([request(2, "s", 20), request(3, "s", 30)].map(|request| model.infer(request))).await;
    copies(2);
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_enough_rows_or_for_the_delay() {
    let (model, _) = listing(direct(0.5, 10), 1);
    let begin = Instant::now();
    model.infer(request(1, "s", 1)).await.expect("runs");
    assert_eq!(begin.elapsed(), ms(10));
    join_all([request(1, "s", 1), request(2, "s", 2)].map(|request| model.infer(request))).await;
    assert_eq!(begin.elapsed(), ms(10), "half of the rows are enough");
}

#[tokio::test(start_paused = true)]
async fn what_a_sequence_must_be_is_said() {
    let (model, _) = listing(direct(0.0, 0), 1);
    let error = async |request| model.infer(request).await.expect_err("refused").message().to_owned();
    let mut none = request(0, "s", 1);
    assert_eq!(
        error(none.clone()).await,
        "[request id: <id_unknown>] inference request to model 'm' must specify a non-zero or non-empty correlation ID; set \
         sequence_id"
    );
    none.parameters.clear();
    assert!(error(none).await.contains("must specify a non-zero or non-empty correlation ID"));
    let mut unknown = request(7, "", 1);
    unknown.id = "r7".to_owned();
    assert_eq!(
        error(unknown).await,
        "[request id: r7] inference request for sequence 7 to model 'm' must specify the START flag on the first request of the \
         sequence"
    );
    let mut wide = request(7, "s", 1);
    wide.inputs[0].tensor = Tensor::from_vec(Shape::from([2, 1]), vec![1, 2]).expect("fits");
    assert!(error(wide).await.contains("must specify batch-size 1 due to requirements of sequence batcher"));
    let mut text = request(7, "s", 1);
    text.parameters.insert("sequence_id".to_owned(), Parameter::String("seven".to_owned()));
    assert!(
        error(text).await.contains("has a string as correlation ID that its input 'ID' of type UINT64 cannot hold")
    );
    let mut fed = request(7, "s", 1);
    fed.inputs.push(NamedTensor::new("START", Tensor::from_vec(Shape::from([1, 1]), vec![1]).expect("fits")));
    assert!(error(fed).await.contains("unexpected inference input 'START' for model 'm'"));
    let mut asking = request(7, "s", 1);
    asking.outputs = vec!["present".into()];
    assert!(error(asking).await.contains("unexpected inference output 'present'"));
    assert!(!model.is_busy(), "none of them began a sequence");
}

#[tokio::test(start_paused = true)]
async fn a_sequence_that_starts_anew_forgets() {
    let (model, _) = listing(oldest(2, 0), 1);
    model.infer(request(1, "s", 1)).await.expect("runs");
    assert_eq!(y(&model.infer(request(1, "", 2)).await.expect("runs")), [1, 2]);
    assert_eq!(y(&model.infer(request(1, "s", 3)).await.expect("runs")), [3]);
    assert_eq!(y(&model.infer(request(1, "e", 4)).await.expect("runs")), [3, 4]);
    assert!(!model.is_busy());
    assert_eq!(y(&model.infer(request(1, "se", 5)).await.expect("runs")), [5]);
}

#[tokio::test(start_paused = true)]
async fn an_output_that_is_a_state_can_be_asked_for_where_it_is_declared() {
    let mut spec = spec(direct(0.0, 0));
    let mut present = spec.outputs[0].clone();
    present.name = "present".into();
    spec.outputs.push(present);
    let (model, _) = model(spec, CONFIG, 1, |request| {
        let mut response = append(request);
        response.outputs.retain(|output| request.wants(&output.name));
        Ok(response)
    });
    let mut first = request(1, "s", 1);
    first.outputs = vec!["y".into()];
    let names = |response: &inference::InferResponse| -> Vec<String> {
        response.outputs.iter().map(|output| output.name.to_string()).collect()
    };
    assert_eq!(names(&model.infer(first).await.expect("runs")), ["y"]);
    let second = model.infer(request(1, "e", 2)).await.expect("runs");
    assert_eq!((names(&second), y(&second)), (vec!["y".to_owned(), "present".to_owned()], vec![1, 2]));
}

#[tokio::test(start_paused = true)]
async fn an_idle_sequence_gives_its_place_to_one_that_waits() {
    let (model, _) = listing(oldest(1, 0), 1);
    model.infer(request(1, "s", 1)).await.expect("runs");
    let begin = Instant::now();
    tokio::time::sleep(ms(900)).await;
    model.infer(request(1, "", 2)).await.expect("not idle for long enough");
    assert_eq!(y(&model.infer(request(2, "s", 3)).await.expect("runs")), [3]);
    assert_eq!(begin.elapsed(), ms(1900));
    let error = model.infer(request(1, "", 4)).await.expect_err("gone");
    assert!(error.message().contains("must specify the START flag"), "{error}");
    assert!(error.message().contains("idle for longer than max_sequence_idle_microseconds"), "{error}");
    assert!(model.is_busy());
    tokio::time::sleep(ms(1001)).await;
    assert!(!model.is_busy(), "the second one was idle as well");
}

#[tokio::test(start_paused = true)]
async fn a_sequence_whose_request_runs_or_waits_is_not_idle() {
    let (model, _, open) = gated(direct(0.0, 0), CONFIG, 1);
    let mut running = model.infer(request(1, "s", 1));
    let mut waiting = model.infer(request(1, "e", 2));
    assert!((&mut running).now_or_never().is_none());
    assert!((&mut waiting).now_or_never().is_none());
    tokio::time::advance(ms(5000)).await;
    assert!(model.is_busy());
    (0..2).for_each(|_| open.send(()).expect("held"));
    running.await.expect("runs");
    assert_eq!(y(&waiting.await.expect("its sequence lives")), [1, 2]);
    assert!(!model.is_busy());
}

/// The token is dropped with the instance.
#[tokio::test(start_paused = true)]
async fn a_model_that_nobody_holds_is_freed_although_a_sequence_lives() {
    let token = Arc::new(());
    let held = token.clone();
    let (model, _) = model(spec(direct(0.0, 0)), CONFIG, 1, move |request| {
        let _held = &held;
        Ok(append(request))
    });
    model.infer(request(1, "s", 1)).await.expect("runs");
    assert!(model.is_busy());
    drop(model);
    tokio::time::sleep(ms(1)).await;
    assert_eq!(Arc::strong_count(&token), 1, "neither a task nor a sequence holds it");
}

#[tokio::test(start_paused = true)]
async fn a_model_without_a_batch_dimension_runs_one_request_at_a_time() {
    for strategy in [direct(0.0, 0), oldest(4, 0)] {
        let mut spec = spec(strategy);
        spec.max_batch_size = 0;
        spec.outputs[0].dims = Shape::from([-1]);
        let (model, seen) = model(spec, CONFIG, 1, |request| {
            let past = fake::numbers(request, "past");
            let all = [past, fake::numbers(request, "x")].concat();
            let present = Tensor::from_vec(Shape::from([all.len() as i64]), all).expect("fits");
            let outputs = ["y", "present"].map(|name| NamedTensor::new(name, present.clone()));
            Ok(inference::InferResponse::new(outputs.into()))
        });
        let flat = |id, marks, x: i32| {
            let tensor = Tensor::from_vec(Shape::from([1]), vec![x]).expect("fits");
            inference::InferRequest { inputs: vec![NamedTensor::new("x", tensor)], ..request(id, marks, x) }
        };
        let sent = [flat(1, "s", 1), flat(1, "e", 2), flat(2, "se", 3)];
        let answers = join_all(sent.map(|request| model.infer(request))).await;
        let answers: Vec<_> = answers.iter().map(|answer| y(answer.as_ref().expect("runs"))).collect();
        assert_eq!(answers, [vec![1], vec![1, 2], vec![3]]);
        assert!(seen.lock().iter().all(|(_, rows)| rows.len() == 1));
    }
}

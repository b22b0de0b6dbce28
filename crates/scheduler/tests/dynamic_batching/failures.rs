//! What each request of a batch is told when the batch fails: its own error, where that can be found out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::join_all;
use inference::{DynamicBatching, Error, ErrorKind, InferRequest, InferResponse, InferenceService, Origin, Result};
use scheduler::ScheduledModel;

use crate::fake::{CONFIG, Seen, assert_echoes, echo, model, ms, request, spec, values};

/// Two requests run together in one execution of `run`; the errors that they get, and how often it ran.
async fn errors_of_two(
    run: impl Fn(&InferRequest) -> Result<InferResponse> + Send + Sync + 'static,
) -> (Arc<ScheduledModel>, Vec<Error>, usize) {
    let runs = Arc::new(AtomicUsize::new(0));
    let (count, run) = (runs.clone(), Arc::new(run));
    let model = model(spec(gather()), CONFIG, 1, move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        run(request)
    });
    let results = join_all([1, 2].map(|row| model.infer(request(&[row])))).await;
    let errors = results.into_iter().map(|result| result.expect_err("fails")).collect();
    (model, errors, runs.load(Ordering::Relaxed))
}

fn check(errors: &[Error], part: &str) {
    assert_eq!(errors.len(), 2);
    for error in errors {
        assert_eq!((error.kind(), error.origin(), error.model()), (ErrorKind::Internal, Origin::Model, Some("m")));
        assert!(error.message().contains(part), "{error}\nshould contain\n{part}");
    }
}

fn gather() -> DynamicBatching {
    DynamicBatching { max_queue_delay: ms(10), ..DynamicBatching::default() }
}

/// An echo that fails as `error` says wherever a row is 13, and what it saw.
fn superstitious(error: fn() -> Error) -> (Arc<ScheduledModel>, Seen) {
    let seen = Seen::default();
    let record = seen.clone();
    let model = model(spec(gather()), CONFIG, 1, move |request| {
        record.lock().push(values(request));
        if values(request).contains(&13) { Err(error()) } else { Ok(echo(request)) }
    });
    (model, seen)
}

#[tokio::test(start_paused = true)]
async fn a_bad_request_fails_alone() {
    let errors: [fn() -> Error; 4] = [
        || Error::invalid_argument("13 is no number"),
        || Error::invalid_argument("13 is no number").from_model(),
        || Error::internal("13 is no number").from_model(),
        || Error::no_room("13 is no number").from_model(),
    ];
    for error in errors {
        let (model, seen) = superstitious(error);
        let requests = [request(&[1]), request(&[13]), request(&[2, 3])];
        let results = join_all(requests.iter().map(|request| model.infer(request.clone()))).await;
        assert_echoes(results[0].as_ref().expect("runs"), &requests[0]);
        assert_echoes(results[2].as_ref().expect("runs"), &requests[2]);
        let told = results[1].as_ref().expect_err("fails");
        assert_eq!((told.kind(), told.message()), (error().kind(), "13 is no number"));
        assert_eq!(*seen.lock(), [vec![1, 13, 2, 3], vec![1], vec![13], vec![2, 3]], "one more run for each");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_requests_fault_is_not_tried_again() {
    for error in [|| Error::unavailable("13 is no number"), || Error::deadline_exceeded("13 is no number")] {
        let (model, seen) = superstitious(error);
        for result in join_all([1, 13].map(|row| model.infer(request(&[row])))).await {
            assert_eq!(result.expect_err("fails").kind(), error().kind());
        }
        assert_eq!(*seen.lock(), [vec![1, 13]]);
    }
}

/// In real time: a paused clock stands still while a model runs.
#[tokio::test]
async fn whoever_went_away_is_not_run_alone() {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (gate, seen) = (parking_lot::Mutex::new(gate), Seen::default());
    let (gate, record) = (Arc::new(gate), seen.clone());
    let model =
        model(spec(DynamicBatching { preferred_batch_sizes: vec![3], ..gather() }), CONFIG, 1, move |request| {
            record.lock().push(values(request));
            if values(request).len() == 3 {
                gate.lock().recv().expect("opened");
                return Err(Error::internal("it broke").from_model());
            }
            Ok(echo(request))
        });
    let [mut stays, mut goes, mut late] = [1, 2, 3].map(|row| model.infer(request(&[row])));
    for waiting in [&mut stays, &mut goes, &mut late] {
        assert!(waiting.now_or_never().is_none());
    }
    while seen.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(goes);
    open.send(()).expect("held");
    stays.await.expect("runs alone");
    late.await.expect("runs alone");
    assert_eq!(*seen.lock(), [vec![1, 2, 3], vec![1], vec![3]]);
}

/// One of them makes the instance panic when it runs alone: those before it have their answers.
#[tokio::test(start_paused = true)]
async fn a_panic_ends_the_single_runs() {
    let model = model(spec(gather()), CONFIG, 1, |request| match values(request)[..] {
        [13] => panic!("cannot digest it"),
        [_] => Ok(echo(request)),
        _ => Err(Error::internal("it broke").from_model()),
    });
    let results = join_all([1, 13, 2].map(|row| model.infer(request(&[row])))).await;
    let told: Vec<String> = results.into_iter().map(|r| r.map_or_else(|e| e.to_string(), |_| "ok".into())).collect();
    assert_eq!(told, ["ok", "model 'm' panicked: cannot digest it", "it broke"]);
    assert!(!model.is_usable());
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_everybodys_and_ends_the_instance() {
    let (model, errors, runs) = errors_of_two(|_| panic!("cannot digest it")).await;
    check(&errors, "model 'm' panicked: cannot digest it");
    assert_eq!(runs, 1);
    assert!(!model.is_usable());
    let error = model.infer(request(&[1])).await.expect_err("nothing is left");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn outputs_must_have_the_rows_of_the_batch() {
    let (_, errors, _) = errors_of_two(|request| {
        assert_eq!(values(request), [1, 2], "they run together");
        let half = InferRequest { inputs: crate::fake::request(&[1]).inputs, ..InferRequest::default() };
        Ok(echo(&half))
    })
    .await;
    check(&errors, "returned output 'y' with shape [1,1] for a batch of 2 rows");
}

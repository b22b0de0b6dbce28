//! Runs that nobody waits for any more end, and leave the instance as it was.

mod fixture;

use std::thread;
use std::time::{Duration, Instant};

use fixture::{completed, load, request};
use inference::{Backend, InferResponse, Result};
use inference::{Batch, CancelCause, Cancellation, ErrorKind, InferRequest, NamedTensor, Placement, Shape, Tensor};

/// So many rounds take weeks.
const ENDLESS: i64 = 1_000_000_000_000;

fn rounds(count: i64) -> InferRequest {
    request(vec![NamedTensor::new("rounds", Tensor::from_vec(Shape::from([1]), vec![count]).expect("valid"))])
}

fn done(result: &Result<InferResponse>) -> i64 {
    let response = result.as_ref().expect("runs");
    response.output("done").expect("returned").to_elements::<i64>().expect("INT64")[0]
}

/// `spin` never ends by itself, neither the first request of the batch nor the others.
#[test]
fn a_cancelled_run_ends_and_the_instance_goes_on() {
    let mut model = load(&completed("spin"));
    for (cause, kind) in
        [(CancelCause::Abandoned, ErrorKind::Cancelled), (CancelCause::Overdue, ErrorKind::DeadlineExceeded)]
    {
        let cancellation = Cancellation::new();
        let batch =
            Batch { cancellation: cancellation.clone(), ..Batch::new(vec![rounds(1), rounds(ENDLESS), rounds(1)]) };
        let (results, took) = thread::scope(|scope| {
            let canceller = scope.spawn(move || {
                thread::sleep(Duration::from_millis(200));
                cancellation.cancel(cause);
                Instant::now()
            });
            let results = model.instances[0].execute(batch);
            (results, canceller.join().expect("does not panic").elapsed())
        });
        assert!(took < Duration::from_secs(1), "it went on for {took:?}");
        assert_eq!(done(&results[0]), 1, "what was done before is answered");
        for result in &results[1..] {
            let error = result.as_ref().expect_err("ended");
            assert_eq!((error.kind(), error.model()), (kind, Some("spin")), "{error}");
        }
        assert_eq!(done(&fixture::execute(&mut model, rounds(7))), 7, "it is not ended once more");
    }
}

#[test]
fn a_run_that_is_cancelled_before_it_begins_does_not_begin() {
    let mut model = load(&completed("spin"));
    let cancellation = Cancellation::new();
    cancellation.cancel(CancelCause::Abandoned);
    let results = model.instances[0].execute(Batch { cancellation, ..Batch::new(vec![rounds(ENDLESS)]) });
    assert_eq!(results[0].as_ref().expect_err("cancelled").kind(), ErrorKind::Cancelled);
    assert_eq!(done(&fixture::execute(&mut model, rounds(2))), 2);
}

/// Instances share a session, and not the way in which their runs are ended.
#[test]
fn other_instances_of_the_session_go_on() {
    let mut model = fixture::backend().load(&completed("spin"), &Placement::on_host(2)).expect("loads");
    let (mut first, mut second) = (model.instances.remove(0), model.instances.remove(0));
    let cancellation = Cancellation::new();
    let cancelled = cancellation.clone();
    let spinning = thread::spawn(move || {
        first.execute(Batch { cancellation: cancelled, ..Batch::new(vec![rounds(ENDLESS)]) }).remove(0)
    });
    let neighbour = thread::spawn(move || second.execute(Batch::new(vec![rounds(20_000)])).remove(0));
    thread::sleep(Duration::from_millis(5));
    cancellation.cancel(CancelCause::Abandoned);
    assert_eq!(spinning.join().expect("does not panic").expect_err("ended").kind(), ErrorKind::Cancelled);
    assert_eq!(done(&neighbour.join().expect("does not panic")), 20_000);
}

//! Requests and instances that a sequence loses, and what becomes of the rest of it.

use futures::FutureExt;
use inference::{Error, ErrorKind, InferenceService, Origin};
use scheduler::SchedulerConfig;

use crate::fake::{CONFIG, append, direct, gated, model, ms, numbers, oldest, request, spec, y};

#[tokio::test(start_paused = true)]
async fn a_request_that_is_cancelled_is_missing_and_a_start_takes_the_rest_with_it() {
    let (model, seen, open) = gated(oldest(2, 0), CONFIG, 1);
    let mut first = model.infer(request(1, "s", 1));
    let mut gone = model.infer(request(1, "", 2));
    let mut third = model.infer(request(1, "e", 3));
    let mut start = model.infer(request(2, "s", 10));
    let mut behind = model.infer(request(2, "", 11));
    for waiting in [&mut first, &mut gone, &mut third, &mut start, &mut behind] {
        assert!(waiting.now_or_never().is_none());
    }
    drop((gone, start));
    let error = behind.await.expect_err("it has no start");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("start the sequence again"), "{error}");
    let error = model.infer(request(2, "", 12)).await.expect_err("it has no start");
    assert!(
        error.message().contains("the request that was to start the sequence timed out or was cancelled"),
        "{error}"
    );
    (0..2).for_each(|_| open.send(()).expect("held"));
    assert_eq!(y(&first.await.expect("runs")), [1]);
    assert_eq!(y(&third.await.expect("runs")), [1, 3]);
    assert_eq!(seen.lock().len(), 2);
    assert!(!model.is_busy());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_takes_nothing_from_the_state_of_a_model_that_cannot_stop() {
    let (model, seen, open) = gated(direct(0.0, 0), CONFIG, 1);
    let mut gone = model.infer(request(1, "s", 1));
    assert!((&mut gone).now_or_never().is_none());
    while seen.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(gone);
    (0..2).for_each(|_| open.send(()).expect("held"));
    assert_eq!(y(&model.infer(request(1, "e", 2)).await.expect("runs")), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_past_the_deadline() {
    let config = SchedulerConfig { infer_timeout: ms(50), ..CONFIG };
    let (model, seen) = model(spec(direct(1.0, 1000)), config, 1, |request| Ok(append(request)));
    let begin = tokio::time::Instant::now();
    let error = model.infer(request(1, "s", 1)).await.expect_err("the delay is longer");
    assert_eq!((error.kind(), begin.elapsed()), (ErrorKind::Unavailable, ms(50)));
    assert!(error.message().contains("Request timeout expired"), "{error}");
    assert!(!model.is_busy(), "it never started");
    assert!(seen.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn too_many_that_wait_are_refused() {
    let config = SchedulerConfig { max_queue_size: 1, ..CONFIG };
    let (model, _, open) = gated(direct(0.0, 0), config, 1);
    let mut first = model.infer(request(1, "s", 1));
    let mut second = model.infer(request(1, "", 2));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    let error = model.infer(request(1, "", 3)).await.expect_err("one waits already");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(
        error.message().starts_with("Exceeds maximum queue size: 1 requests wait for model 'm' already"),
        "{error}"
    );
    (0..2).for_each(|_| open.send(()).expect("held"));
    first.await.expect("runs");
    assert_eq!(y(&second.await.expect("runs")), [1, 2]);
}

/// The instance that gets 666 panics.
#[tokio::test(start_paused = true)]
async fn the_sequences_of_an_instance_that_crashes_are_told_so() {
    let (model, _) = model(spec(oldest(2, 0)), CONFIG, 2, |request| {
        assert!(!numbers(request, "x").contains(&666), "cannot digest it");
        Ok(append(request))
    });
    // 1 and 3 are on the first instance, 2 on the second.
    for (id, x) in [(1, 10), (2, 20), (3, 30)] {
        model.infer(request(id, "s", x)).await.expect("runs");
    }
    let (crash, stranded) = futures::join!(model.infer(request(1, "", 666)), model.infer(request(1, "", 11)));
    let crash = crash.expect_err("it panics");
    assert_eq!((crash.kind(), crash.origin()), (ErrorKind::Internal, Origin::Model));
    assert!(crash.message().contains("panicked: cannot digest it; sequence 1 has ended with the instance"), "{crash}");
    let stranded = stranded.expect_err("it waited behind");
    assert!(stranded.message().contains("sequence 1 of model 'm' has ended: the model instance that had it crashed"));
    let other = model.infer(request(3, "", 31)).await.expect_err("it was on that instance");
    assert!(other.message().contains("sequence 3 to model 'm' must specify the START flag"), "{other}");
    assert!(other.message().contains("the model instance that had it crashed"), "{other}");
    assert_eq!(y(&model.infer(request(2, "", 21)).await.expect("the other instance lives")), [20, 21]);
    assert!(model.is_usable());
    model.infer(request(3, "s", 32)).await.expect("it starts again, on the other one");

    model.infer(request(3, "", 666)).await.expect_err("it panics");
    assert!(!model.is_usable() && !model.is_busy());
    let error = model.infer(request(4, "s", 1)).await.expect_err("nothing is left");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("every instance of it panicked"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_leaves_the_state_as_it_was() {
    let (model, _) = model(spec(direct(0.0, 0)), CONFIG, 1, |request| match numbers(request, "x")[0] {
        -1 => Err(Error::internal("no").from_model()),
        -2 => {
            let mut response = append(request);
            response.outputs.truncate(1);
            Ok(response)
        }
        _ => Ok(append(request)),
    });
    model.infer(request(1, "s", 1)).await.expect("runs");
    model.infer(request(1, "", -1)).await.expect_err("it fails");
    let error = model.infer(request(1, "", -2)).await.expect_err("it returns no state");
    assert_eq!(error.origin(), Origin::Model);
    assert!(error.message().contains("state output 'present' is missing"), "{error}");
    assert_eq!(y(&model.infer(request(1, "e", 2)).await.expect("runs")), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_request_fails_alone_where_the_server_has_all_that_the_model_knows() {
    for (strategy, together) in [(oldest(4, 10), true), (direct(1.0, 10), false)] {
        let (model, seen) = model(spec(strategy), CONFIG, 1, |request| match numbers(request, "x").contains(&-1) {
            true => Err(Error::internal("it broke").from_model()),
            false => Ok(append(request)),
        });
        let (good, bad) = futures::join!(model.infer(request(1, "s", 1)), model.infer(request(2, "s", -1)));
        bad.expect_err("it is bad");
        assert_eq!(good.is_ok(), together, "in rows of its own the model may keep something as well");
        assert_eq!(seen.lock().len(), if together { 3 } else { 1 });
    }
}

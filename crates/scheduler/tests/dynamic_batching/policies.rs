//! Priorities, timeouts and bounds of the queue.

use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use inference::{DynamicBatching, ErrorKind, InferRequest, InferenceService, QueuePolicy, TimeoutAction};
use scheduler::SchedulerConfig;

use crate::fake::{CONFIG, gated, ms, recording, request, with};

/// Three levels, 2 being the default.
fn levels() -> DynamicBatching {
    DynamicBatching { priority_levels: 3, default_priority_level: 2, ..DynamicBatching::default() }
}

fn timeout(action: TimeoutAction) -> DynamicBatching {
    let default_queue_policy = QueuePolicy {
        timeout_action: action,
        default_timeout: Some(ms(50)),
        allow_timeout_override: true,
        max_queue_size: None,
    };
    DynamicBatching { default_queue_policy, ..DynamicBatching::default() }
}

fn microseconds(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).expect("short")
}

/// What ran, when these came in this order while the instance was busy with a first request of row 0 for `busy`.
async fn ran(batching: DynamicBatching, requests: Vec<InferRequest>, busy: Duration) -> Vec<Vec<i32>> {
    let (model, seen, open) = gated(batching, CONFIG);
    let mut first = model.infer(request(&[0]));
    assert!((&mut first).now_or_never().is_none());
    let mut waiting: Vec<_> = requests.into_iter().map(|request| model.infer(request)).collect();
    for waiting in &mut waiting {
        assert!(waiting.now_or_never().is_none());
    }
    tokio::time::advance(busy).await;
    for _ in 0..=waiting.len() {
        open.send(()).expect("held");
    }
    first.await.expect("runs");
    join_all(waiting).await;
    drop(model);
    std::mem::take(&mut *seen.lock())
}

#[tokio::test(start_paused = true)]
async fn lower_levels_run_first() {
    let of = |level: i64, rows: &[i32]| with(request(rows), "priority", level);
    let requests = vec![of(3, &[30]), of(0, &[20, 21]), of(1, &[10, 11]), of(9, &[22]), of(1, &[12, 13])];
    let ran = ran(levels(), requests, ms(0)).await;
    assert_eq!(ran, [vec![0], vec![10, 11, 12, 13], vec![20, 21, 22, 30]]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_rejected() {
    let (model, seen, open) = gated(timeout(TimeoutAction::Reject), CONFIG);
    let mut first = model.infer(request(&[0]));
    assert!((&mut first).now_or_never().is_none());
    // Its own time is shorter, the default, and again the default, as it cannot be lengthened.
    let own = [20, 0, 100].map(|own| with(request(&[1]), "timeout", microseconds(ms(own))));
    let mut waiting = own.map(|request| model.infer(request));
    for (time, ended) in [(0, [false; 3]), (21, [true, false, false]), (30, [false, true, true])] {
        tokio::time::advance(ms(time)).await;
        for (waiting, ended) in waiting.iter_mut().zip(ended) {
            let error = waiting.now_or_never().map(|result| result.expect_err("too late"));
            assert_eq!(error.is_some(), ended, "after {time}");
            if let Some(error) = error {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "as Triton answers it");
                assert!(error.message().contains("Request timeout expired"), "{error}");
            }
        }
        if ended[0] {
            // It has ended and must not be polled again.
            waiting[0] = model.infer(with(request(&[1]), "timeout", microseconds(ms(400))));
            assert!((&mut waiting[0]).now_or_never().is_none());
        }
    }
    open.send(()).expect("held");
    first.await.expect("runs: its time in the queue was short");
    open.send(()).expect("held");
    let [late, ..] = waiting;
    late.await.expect("runs");
    assert_eq!(*seen.lock(), [vec![0], vec![1]], "who was rejected takes no instance");
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_delayed() {
    let short = with(request(&[1, 2, 3]), "timeout", microseconds(ms(10)));
    let requests = || vec![short.clone(), request(&[4, 5, 6])];
    let delayed = ran(timeout(TimeoutAction::Delay), requests(), ms(20)).await;
    assert_eq!(delayed, [vec![0], vec![4, 5, 6], vec![1, 2, 3]]);
    let in_time = ran(timeout(TimeoutAction::Delay), requests(), ms(5)).await;
    assert_eq!(in_time, [vec![0], vec![1, 2, 3], vec![4, 5, 6]]);
    let mut fixed = timeout(TimeoutAction::Delay);
    fixed.default_queue_policy.allow_timeout_override = false;
    assert_eq!(ran(fixed, requests(), ms(20)).await, [vec![0], vec![1, 2, 3], vec![4, 5, 6]]);
}

#[tokio::test(start_paused = true)]
async fn full_queues_refuse() {
    let policy = QueuePolicy { max_queue_size: Some(1), ..QueuePolicy::default() };
    let batching = DynamicBatching { priority_queue_policy: [(1, policy)].into(), ..levels() };
    let config = SchedulerConfig { max_queue_size: 2, ..CONFIG };
    let (model, _, open) = gated(batching, config);
    let mut running = model.infer(request(&[0]));
    assert!((&mut running).now_or_never().is_none());
    let urgent = || with(request(&[1]), "priority", 1);
    let mut first = model.infer(urgent());
    assert!((&mut first).now_or_never().is_none());
    let error = model.infer(urgent()).await.expect_err("one of this level waits");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.message().starts_with("Exceeds maximum queue size: 1 requests of priority level 1 wait"), "{error}");
    let mut second = model.infer(request(&[2]));
    assert!((&mut second).now_or_never().is_none());
    let error = model.infer(request(&[3])).await.expect_err("two wait");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.message().starts_with("Exceeds maximum queue size: 2 requests wait for model 'm'"), "{error}");
    for _ in 0..3 {
        open.send(()).expect("held");
    }
    for response in join_all([running, first, second]).await {
        response.expect("runs");
    }
}

/// With no queue at all, requests still find each other while an instance is free.
#[tokio::test(start_paused = true)]
async fn a_free_instance_gathers_a_batch_whatever_the_queues_bound() {
    let delay = DynamicBatching { max_queue_delay: ms(10), ..DynamicBatching::default() };
    let (model, seen, open) = gated(delay, SchedulerConfig { max_queue_size: 0, ..CONFIG });
    let mut together = [1, 2].map(|row| model.infer(request(&[row])));
    for waiting in &mut together {
        assert!(waiting.now_or_never().is_none());
    }
    tokio::time::advance(ms(10)).await;
    while seen.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(model.infer(request(&[3])).await.expect_err("no queue").kind(), ErrorKind::Overloaded);
    open.send(()).expect("held");
    for response in join_all(together).await {
        response.expect("runs");
    }
    assert_eq!(*seen.lock(), [vec![1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_holds_in_the_queue_and_while_it_runs() {
    let (model, _, open) = gated(DynamicBatching::default(), CONFIG);
    let in_time = |time: u64| {
        let deadline = tokio::time::Instant::now() + ms(time);
        InferRequest { deadline: Some(deadline.into_std()), ..request(&[1]) }
    };
    let mut runs = model.infer(in_time(10));
    assert!((&mut runs).now_or_never().is_none());
    let mut waits = model.infer(in_time(5));
    assert!((&mut waits).now_or_never().is_none());
    tokio::time::advance(ms(6)).await;
    assert_eq!(waits.await.expect_err("too late").kind(), ErrorKind::Unavailable);
    assert!((&mut runs).now_or_never().is_none());
    tokio::time::advance(ms(5)).await;
    assert_eq!(runs.await.expect_err("too late").kind(), ErrorKind::DeadlineExceeded);
    let past = InferRequest { deadline: Some(std::time::Instant::now()), ..request(&[1]) };
    assert_eq!(model.infer(past).await.expect_err("too late").kind(), ErrorKind::Unavailable);
    open.send(()).expect("held");
    let (again, seen) = recording(DynamicBatching::default());
    again.infer(request(&[1])).await.expect("runs");
    assert_eq!(seen.lock().len(), 1);
}

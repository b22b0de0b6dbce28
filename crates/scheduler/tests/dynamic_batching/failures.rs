//! What each request of a batch is told when the batch fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use inference::{DynamicBatching, Error, ErrorKind, InferRequest, InferResponse, InferenceService, Origin, Result};
use scheduler::ScheduledModel;

use crate::fake::{CONFIG, echo, model, ms, request, spec, values};

/// Two requests run together in one execution of `run`; the errors that they get, and how often it ran.
async fn errors_of_two(
    run: impl Fn(&InferRequest) -> Result<InferResponse> + Send + Sync + 'static,
) -> (Arc<ScheduledModel>, Vec<Error>, usize) {
    let runs = Arc::new(AtomicUsize::new(0));
    let (count, run) = (runs.clone(), Arc::new(run));
    let batching = DynamicBatching { max_queue_delay: ms(10), ..DynamicBatching::default() };
    let model = model(spec(batching), CONFIG, 1, move |request| {
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

#[tokio::test(start_paused = true)]
async fn an_error_of_the_batch_is_everybodys() {
    let (_, errors, runs) = errors_of_two(|_| Err(Error::internal("it broke").from_model())).await;
    check(&errors, "it broke");
    assert_eq!(runs, 1);
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

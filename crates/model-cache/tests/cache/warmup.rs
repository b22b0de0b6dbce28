//! Warm-up: before a model is ready, and a load that fails with it.

use std::sync::atomic::Ordering;

use inference::ErrorKind;

use crate::harness::{Harness, model_config};

fn warming(parameters: &[(&str, &str)], data: &str) -> String {
    let sample = format!("inputs {{ key: \"x\" value {{ data_type: TYPE_UINT8 dims: 1 {data} }} }}");
    format!("{} model_warmup {{ name: \"first\" count: 3 {sample} }}", model_config(parameters))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_runs_its_samples_before_its_first_request() {
    let harness = Harness::new(100, |_| {});
    harness.put_config("warm", &warming(&[("mark", "1")], "random_data: true"));
    assert_eq!(harness.mark("warm").await.expect("loads and answers"), 1);
    assert_eq!(harness.backend.runs.load(Ordering::SeqCst), 3 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_that_fails_fails_the_load_and_is_named() {
    let harness = Harness::new(100, |_| {});
    harness.put_config("panics", &warming(&[("fault", "run_panic")], "zero_data: true"));
    harness.put_config("unread", &warming(&[("mark", "1")], "input_data_file: \"none\""));
    let wrong = warming(&[("mark", "1")], "zero_data: true").replace("key: \"x\"", "key: \"y\"");
    harness.put_config("wrong", &wrong);
    for (name, part) in
        [("panics", "sample 'first': the model panicked"), ("unread", "warmup/none"), ("wrong", "'first'")]
    {
        let error = harness.mark(name).await.expect_err(part);
        assert!(error.message().starts_with("load failed for model") && error.message().contains(part), "{error}");
        assert!(matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::Internal), "{error:?}");
    }
}

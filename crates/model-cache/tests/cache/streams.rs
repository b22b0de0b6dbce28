//! Streams of responses through the model cache.

use std::time::Duration;

use futures::StreamExt;
use inference::{ErrorKind, InferenceService, ModelControl};

use crate::harness::{Harness, model_config, request};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_and_each_of_its_answers_pins_the_model() {
    let harness = Harness::new(100, |config| config.room_timeout = Duration::from_millis(50));
    let decoupled = model_config(&[("estimate", "60"), ("actual", "60"), ("mark", "1")])
        + "model_transaction_policy { decoupled: true }";
    harness.put_config("stream.tar.gz", &decoupled);
    harness.put("other.tar.gz", &[("estimate", "60"), ("actual", "60"), ("mark", "2")]);
    let key = request("stream.tar.gz").model;
    assert_eq!(harness.cache.is_decoupled(&key), None, "nothing is loaded to find out");

    let mut stream = harness.cache.infer_stream(request("stream.tar.gz"));
    let answer = stream.next().await.expect("one response").expect("it answers");
    assert!(answer.cache.is_some(), "the first answer tells where the model was found");
    assert_eq!(harness.cache.is_decoupled(&key), Some(true));
    let refused = harness.mark("other.tar.gz").await.expect_err("the stream is open");
    assert_eq!(refused.kind(), ErrorKind::NoRoom, "{refused}");
    assert!(stream.next().await.is_none());
    drop(stream);
    let refused = harness.mark("other.tar.gz").await.expect_err("an answer is still being written");
    assert_eq!(refused.kind(), ErrorKind::NoRoom, "{refused}");
    drop(answer);
    assert_eq!(harness.mark("other.tar.gz").await.expect("there is room"), 2);
    let single = harness.mark("stream.tar.gz").await.expect_err("it is decoupled");
    assert_eq!(single.kind(), ErrorKind::Unsupported, "{single}");
}

//! How calls and streams end: the client goes away, the server drains, nobody says anything.

use std::sync::atomic::Ordering;
use std::time::Duration;

use frontend::{Admission, FrontendConfig, KeepAlive, ServeConfig};
use futures::stream::{self, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::fake::until;
use crate::{request, start, start_with};

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_requests() {
    let server = start().await;
    let mut client = server.client.clone();
    let call = tokio::spawn(async move { client.model_infer(request("slow", &[1.0])).await });
    server.fake.wait_for_requests(1).await;
    call.abort();
    until(|| server.fake.abandoned.load(Ordering::SeqCst) == 1).await;

    let mut client = server.client.clone();
    // hyper's client resets a stream once it has nothing to send any more.
    let gone = CancellationToken::new();
    let requests = stream::iter([request("slow", &[1.0]), request("slow", &[2.0])]).chain(stream::pending());
    let requests = requests.take_until(gone.clone().cancelled_owned());
    let answers = client.model_stream_infer(requests).await.expect("a stream");
    server.fake.wait_for_requests(3).await;
    drop(answers);
    gone.cancel();
    until(|| server.fake.abandoned.load(Ordering::SeqCst) == 3).await;
}

#[tokio::test]
async fn draining_ends_streams_once_their_requests_are_answered() {
    let serve = ServeConfig { drain_grace: Duration::from_millis(10), ..ServeConfig::default() };
    let mut server = start_with(Admission::default(), FrontendConfig::default(), serve).await;
    let requests = stream::iter([request("slow", &[1.0])]).chain(stream::pending());
    let mut answers = server.client.model_stream_infer(requests).await.expect("a stream").into_inner();
    server.fake.wait_for_requests(1).await;
    server.drain.cancel();
    server.closing.cancel();
    server.fake.gate.add_permits(1);
    assert!(answers.message().await.expect("the answer").is_some());
    let status = answers.message().await.expect_err("the end");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the server is shutting down"));
    let report =
        tokio::time::timeout(Duration::from_secs(10), server.server).await.expect("in time").expect("no panic");
    assert_eq!(report.cut, 0);
}

#[tokio::test]
async fn a_stream_may_be_silent_for_longer_than_an_answer_may_be_left_lying() {
    let serve = ServeConfig { write_timeout: Duration::from_millis(200), ..ServeConfig::default() };
    let mut server = start_with(Admission::default(), FrontendConfig::default(), serve).await;
    let requests = stream::iter([0, 900]).then(async |wait| {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        request("identity", &[1.0])
    });
    let answers = server.client.model_stream_infer(requests.boxed()).await.expect("a stream").into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.expect("not cut").error_message).collect().await;
    assert_eq!(answers, ["", ""]);
}

#[tokio::test]
async fn a_connection_past_its_age_takes_no_calls_and_is_cut_after_its_grace() {
    let (age, grace) = (Duration::from_millis(300), Duration::from_millis(300));
    let keep_alive = KeepAlive { max_age: Some(age), max_age_grace: Some(grace), ..KeepAlive::default() };
    let serve = ServeConfig { keep_alive, ..ServeConfig::default() };
    let mut server = start_with(Admission::default(), FrontendConfig::default(), serve).await;
    let mut client = server.client.clone();
    let stuck = tokio::spawn(async move { client.model_infer(request("slow", &[1.0])).await });
    server.fake.wait_for_requests(1).await;
    let status = stuck.await.expect("no panic").expect_err("cut");
    assert!(server.fake.abandoned.load(Ordering::SeqCst) == 1, "{status:?}");
    // The channel connects anew by itself.
    server.client.model_infer(request("identity", &[1.0])).await.expect("an answer on another connection");
}

#[tokio::test]
async fn a_client_that_gives_no_sign_is_closed_in_time() {
    let keep_alive = KeepAlive {
        interval: Some(Duration::from_millis(50)),
        timeout: Duration::from_millis(50),
        ..KeepAlive::default()
    };
    let serve = ServeConfig { keep_alive, ..ServeConfig::default() };
    let server = start_with(Admission::default(), FrontendConfig::default(), serve).await;
    let mut silent = TcpStream::connect(server.address).await.expect("the server listens");
    // The preface and empty settings; and no answer to a ping.
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    let mut frames = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), silent.read_to_end(&mut frames)).await;
    assert!(closed.is_ok(), "it was asked and did not answer");
    // A client that answers stays.
    let mut client = server.client.clone();
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.model_infer(request("identity", &[1.0])).await.expect("an answer");
}

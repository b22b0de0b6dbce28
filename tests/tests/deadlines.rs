//! Cold requests that say how long they wait: who cannot be served in time is told so at once, and when to come again.

use std::time::Duration;

use e2e::{Answer, S3Store, Server, Store, fp32, infer, until};
use tonic::{Code, Request};

use crate::downloads::echo_of;
use crate::grpc::{connect, floats};
use crate::{ask_echo, assert_has};

/// How long a request waits that is told at once that this is not enough.
const SHORT: &str = "2s";

async fn ask(server: &Server, path: &str, target: &str, timeout: &str) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("x-amzn-sagemaker-target-model", target),
        ("x-panoply-timeout", timeout),
    ];
    let body = infer(&[fp32("X", &[1.0])]).to_string();
    server.http().send(http::Method::POST, &server.url(path), &headers, body).await
}

fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no time in {answer:?}"))
}

/// A server that has learned that an archive of 512 KiB takes two seconds and more to come.
async fn experienced() -> (S3Store, Server) {
    let store = S3Store::start().await;
    store.put("first.tar.gz", &echo_of(512 << 10));
    let server = store.launch().start().await;
    store.server.set_chunk_delay(Duration::from_millis(250));
    ask(&server, "/invocations", "first.tar.gz", "1m").await.ok();
    (store, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_served_in_time_is_told_so_and_the_load_goes_on() {
    let (store, server) = experienced().await;
    for target in ["http.tar.gz", "runtime.tar.gz", "stream.tar.gz", "grpc.tar.gz"] {
        store.put(target, &echo_of(4 << 20));
    }
    let answer = ask(&server, "/invocations", "http.tar.gz", SHORT).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(retry_after(&answer) > 1, "{answer:?}");
    assert_has(&answer.error(), &["http.tar.gz", "is being loaded", "the load goes on"]);

    for (path, target) in
        [("/endpoints/e/invocations", "runtime.tar.gz"), ("/endpoints/e/invocations-response-stream", "stream.tar.gz")]
    {
        let answer = ask(&server, path, target, SHORT).await;
        assert_eq!(
            (answer.status, answer.header("x-amzn-errortype")),
            (429, Some("ModelNotReadyException")),
            "{answer:?}"
        );
        assert!(retry_after(&answer) > 1, "{answer:?}");
    }

    let mut call = Request::new(floats("grpc.tar.gz", &[1.0]));
    // As the header that it becomes: the client itself is to wait for the server's word.
    call.metadata_mut().insert("grpc-timeout", "2S".parse().expect("ASCII"));
    let status = connect(&server).await.model_infer(call).await.expect_err("too long");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let seconds = status.metadata().get("retry-after").expect("told").to_str().expect("ASCII").parse::<u64>();
    assert!(seconds.expect("a number") > 1, "{status:?}");

    store.server.set_chunk_delay(Duration::ZERO);
    until("all are in memory", async || {
        (server.metrics().await.sum("panoply_resident_archives", &[]) == 5.0).then_some(())
    })
    .await;
    for target in ["http.tar.gz", "runtime.tar.gz", "stream.tar.gz", "grpc.tar.gz"] {
        assert_eq!(ask(&server, "/invocations", target, SHORT).await.ok().cache(), "memory");
        assert_eq!(store.gets(target), 1, "{target}");
    }
    // They were told; nobody's time ran out.
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("panoply_requests_total", &[("outcome", "loading")]), 4.0);
    assert_eq!(metrics.sum("panoply_requests_total", &[("outcome", "deadline_exceeded")]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_load_is_waited_for_and_time_that_runs_out_says_when_to_come_again() {
    let store = S3Store::start().await;
    store.put("first.tar.gz", &echo_of(4 << 20));
    let server = store.launch().start().await;
    store.server.set_chunk_delay(Duration::from_millis(250));
    let answer = ask(&server, "/invocations", "first.tar.gz", "0.3").await;
    assert_eq!((answer.status, retry_after(&answer)), (504, 1), "{answer:?}");
    // What asks what a model is waits no longer either.
    let headers = [("x-panoply-timeout", "0.1")];
    let url = server.url("/v2/models/first.tar.gz");
    let answer = server.http().send(http::Method::GET, &url, &headers, "").await;
    assert_eq!((answer.status, retry_after(&answer)), (504, 1), "{answer:?}");
    store.server.set_chunk_delay(Duration::ZERO);
    ask_echo(&server, "first.tar.gz", &[1.0]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_none_is_refused() {
    let store = S3Store::start().await;
    store.put("echo.tar.gz", &echo_of(1 << 10));
    let server = store.launch().start().await;
    for path in
        ["/invocations", "/v2/models/echo.tar.gz/infer", "/v2/models/echo.tar.gz/generate", "/endpoints/e/invocations"]
    {
        for timeout in ["soon", "-1", "0", "5 minutes"] {
            let answer = ask(&server, path, "echo.tar.gz", timeout).await;
            assert_eq!(answer.status, 400, "{path} {timeout}: {answer:?}");
            assert_has(&answer.text(), &["X-Panoply-Timeout", timeout]);
        }
    }
    assert_eq!(store.heads("echo.tar.gz"), 0, "nothing was loaded for them");
}

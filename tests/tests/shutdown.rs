//! SIGTERM: not ready at once, everything that was accepted is answered, exit code 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use e2e::{
    Endless, FolderStore, Gate, Http, Launch, S3Store, Store, echo, fp32, infer, spin_archive, spin_request, until,
};
use futures::future::join_all;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::single_flight::big_echo;

const CLIENTS: usize = 8;

fn request(address: &str) -> Request<Full<Bytes>> {
    let body = infer(&[fp32("X", &[3.0])]).to_string();
    let request = Request::post("/invocations").header(header::HOST, address);
    request.header("x-amzn-sagemaker-target-model", "echo.tar.gz").body(Full::from(body)).expect("a valid request")
}

/// `None` when nobody listens any more.
async fn connect(address: &str) -> Option<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a handshake sends nothing");
    tokio::spawn(connection);
    Some(sender)
}

/// Sends one request after the other, on one connection for as long as the server says, until the server takes no new
/// connections. Every request must be answered well.
async fn keep_asking(address: String, answered: Arc<AtomicUsize>) {
    while let Some(mut connection) = connect(&address).await {
        let mut is_new = true;
        loop {
            let response = match connection.send_request(request(&address)).await {
                Ok(response) => response,
                // The kernel took this connection while the server closed its listener: it never reached the server.
                Err(_) if is_new && connect(&address).await.is_none() => return,
                Err(error) => panic!("a request on a connection that nobody said to close is not answered: {error:?}"),
            };
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("a whole answer").to_bytes();
            assert_eq!(head.status, 200, "{}", String::from_utf8_lossy(&body));
            answered.fetch_add(1, Ordering::SeqCst);
            if head.headers.get(header::CONNECTION).is_some_and(|value| value == "close") {
                break;
            }
            connection.ready().await.expect("the connection stays open");
            is_new = false;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_when_the_server_is_told_to_stop_under_load() {
    let store = FolderStore::new();
    store.put("echo.tar.gz", &echo());
    let mut server = store.launch().option("--drain-delay", "1s").start().await;
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(keep_asking(server.address(), answered.clone()))).collect();
    until("the clients are at work", async || (answered.load(Ordering::SeqCst) > 100).then_some(())).await;

    server.terminate();
    let http = Http::new();
    let url = server.url("/v2/health/ready");
    until("the server says that it is not ready", async || {
        let answer = http.try_send(Method::GET, &url, &[], "").await.expect("it still listens, and says so");
        (answer.status == 400).then_some(())
    })
    .await;
    let before = answered.load(Ordering::SeqCst);
    until("requests are answered all the same", async || (answered.load(Ordering::SeqCst) > before).then_some(()))
        .await;
    for client in join_all(clients).await {
        client.expect("no request fails");
    }
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_finished() {
    let store = FolderStore::new();
    store.put("spin.tar.gz", &spin_archive());
    let mut server = store.launch().start().await;
    server.invoke("spin.tar.gz", &spin_request(1)).await.ok();
    let (http, url) = (Http::new(), server.url("/invocations"));
    let spin = tokio::spawn(async move { http.invoke(&url, "spin.tar.gz", &spin_request(2_000_000)).await });
    until("the request is in flight", async || {
        (server.metrics().await.sum("panoply_requests_in_flight", &[]) == 1.0).then_some(())
    })
    .await;
    server.terminate();
    assert_eq!(spin.await.expect("the request runs").ok().numbers("done"), [2_000_000.0]);
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_is_bounded() {
    let store = FolderStore::new();
    store.put("spin.tar.gz", &spin_archive());
    let mut server = store.launch().option("--drain-timeout", "100ms").start().await;
    server.invoke("spin.tar.gz", &spin_request(1)).await.ok();
    let spin = Endless::invoke(&server.url("/invocations"), "spin.tar.gz");
    until("the request is in flight", async || {
        (server.metrics().await.sum("panoply_requests_in_flight", &[]) == 1.0).then_some(())
    })
    .await;
    server.terminate();
    assert!(spin.answer().await.is_err(), "it was cut");
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_under_way_does_not_hold_up_the_end() {
    let store = S3Store::start().await;
    store.put("big.tar.gz", &big_echo("big"));
    let gate = Gate::closed(store.server.endpoint(), 64 << 10).await;
    let launch = store.launch_through(gate.endpoint()).option("--drain-timeout", "100ms");
    let mut server = launch.start().await;
    let url = server.url("/invocations");
    let cut = tokio::spawn(async move {
        let body = infer(&[fp32("X", &[1.0])]).to_string();
        Http::new().try_send(Method::POST, &url, &[("x-amzn-sagemaker-target-model", "big.tar.gz")], body).await
    });
    gate.holds().await;
    server.terminate();
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(cut.await.expect("the request runs").map_or(true, |answer| answer.status == 503));
    gate.open();
    let server = launch.start().await;
    let answer = server.invoke("big.tar.gz", &infer(&[fp32("X", &[1.0])])).await.ok();
    assert_eq!((answer.cache(), answer.numbers("Y")), ("store", vec![1.0]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_ends_at_once() {
    let mut server = Launch::new().start().await;
    server.get("/v2").await.ok();
    let start = std::time::Instant::now();
    server.terminate();
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

//! Connections: clients that go away, handlers that panic, HTTP/2, and draining.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use frontend::{FrontendConfig, ServeConfig};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fake::{Running, request, start, start_with, until};

const SLOW: &str = "/v2/models/slow/infer";

fn quick_drain() -> ServeConfig {
    ServeConfig {
        drain_grace: Duration::from_millis(300),
        drain_timeout: Duration::from_secs(10),
        ..Default::default()
    }
}

/// A request as bytes on the wire.
fn raw(path: &str) -> Vec<u8> {
    let body = request(&[1.0]);
    format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Reads one answer, whose body has a Content-Length.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut buffer).await.expect("readable") {
            0 => return text,
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request() {
    let server = start().await;
    let mut stream = TcpStream::connect(server.http).await.expect("connects");
    stream.write_all(&raw(SLOW)).await.expect("writes");
    server.fake.wait_for_requests(1).await;
    assert_eq!(server.fake.abandoned.load(Ordering::SeqCst), 0);
    drop(stream);
    until(|| server.fake.abandoned.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn an_http_2_stream_that_is_reset_cancels_its_request_and_no_other() {
    let server = start().await;
    let stream = TcpStream::connect(server.http).await.expect("connects");
    let io = TokioIo::new(stream);
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io).await.expect("speaks h2");
    tokio::spawn(connection);
    let send = |path: &str| {
        let request = http::Request::post(format!("http://test{path}")).body(Full::from(request(&[1.0])));
        sender.clone().send_request(request.expect("a request"))
    };
    let slow = tokio::spawn(send(SLOW));
    server.fake.wait_for_requests(1).await;
    slow.abort();
    until(|| server.fake.abandoned.load(Ordering::SeqCst) == 1).await;
    let response = send("/v2/models/identity/infer").await.expect("an answer");
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    assert!(body.starts_with(b"{\"model_name\":\"identity\""));
}

#[tokio::test]
async fn a_panic_is_answered_and_its_connection_lives_on() {
    let server = start().await;
    let mut stream = TcpStream::connect(server.http).await.expect("connects");
    stream.write_all(&raw("/v2/models/panic/infer")).await.expect("writes");
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains(r#"{"error":"internal error"#), "{answer}");
    stream.write_all(&raw("/v2/models/identity/infer")).await.expect("writes");
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Sends requests without a pause until told to stop, a new connection whenever the server closed one. Counts answers;
/// whatever a request that was sent comes to must be an answer.
async fn keep_asking(server: &Running, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    'connections: while !stop.load(Ordering::SeqCst) {
        let Ok(mut stream) = TcpStream::connect(server.http).await else { return };
        loop {
            stream.write_all(&raw("/v2/models/identity/infer")).await.expect("an accepted connection takes a request");
            let answer = read_answer(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
            answered.fetch_add(1, Ordering::SeqCst);
            if answer.to_lowercase().contains("connection: close") {
                continue 'connections;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_under_load_fails_no_request() {
    let mut server = start_with(FrontendConfig::default(), quick_drain()).await;
    let servers = std::mem::take(&mut server.servers);
    let server = Arc::new(server);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (server, stop, answered) = (server.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move { keep_asking(&server, stop, answered).await })
        })
        .collect();
    until(|| answered.load(Ordering::SeqCst) > 50).await;
    let before = answered.load(Ordering::SeqCst);
    server.drain.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(answered.load(Ordering::SeqCst) > before, "requests are answered during the grace period");
    // As a load balancer, which stops sending when it sees that the server is not ready.
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("no request failed");
    }
    for ended in servers {
        assert_eq!(ended.await.expect("ends").cut, 0);
    }
    assert!(TcpStream::connect(server.http).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn draining_waits_for_what_is_in_flight_and_closes_what_is_idle() {
    let mut server = start_with(FrontendConfig::default(), quick_drain()).await;
    let mut idle = TcpStream::connect(server.http).await.expect("connects");
    idle.write_all(&raw("/v2/models/identity/infer")).await.expect("writes");
    assert!(!read_answer(&mut idle).await.to_lowercase().contains("connection: close"));
    let mut busy = TcpStream::connect(server.http).await.expect("connects");
    busy.write_all(&raw(SLOW)).await.expect("writes");
    server.fake.wait_for_requests(2).await;

    server.drain.cancel();
    assert_eq!(idle.read(&mut [0; 1]).await.expect("closed cleanly"), 0);
    server.fake.gate.add_permits(1);
    let answer = read_answer(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.to_lowercase().contains("connection: close"), "{answer}");
    for ended in std::mem::take(&mut server.servers) {
        assert_eq!(ended.await.expect("ends").cut, 0);
    }
}

#[tokio::test]
async fn a_drain_ends_in_bounded_time_and_says_what_it_cut() {
    let serve = ServeConfig { drain_timeout: Duration::from_millis(700), ..quick_drain() };
    let mut server = start_with(FrontendConfig::default(), serve).await;
    let mut busy = TcpStream::connect(server.http).await.expect("connects");
    busy.write_all(&raw(SLOW)).await.expect("writes");
    server.fake.wait_for_requests(1).await;
    server.drain.cancel();
    let ended = std::mem::take(&mut server.servers).into_iter().map(async |ended| ended.await.expect("ends").cut);
    let cut: Vec<usize> = futures::future::join_all(ended).await;
    assert_eq!(cut, [1, 0]);
    assert_eq!(server.fake.abandoned.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_was_accepted_last_still_gets_its_answer() {
    let serve = ServeConfig { drain_grace: Duration::ZERO, ..quick_drain() };
    let server = start_with(FrontendConfig::default(), serve).await;
    let mut silent = TcpStream::connect(server.http).await.expect("connects");
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.drain.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    silent.write_all(&raw("/v2/models/identity/infer")).await.expect("writes");
    assert!(read_answer(&mut silent).await.starts_with("HTTP/1.1 200"));
}

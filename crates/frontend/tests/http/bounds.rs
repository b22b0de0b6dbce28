//! What clients may hold: answers that they do not read, requests in flight, bytes of bodies.

use std::time::Duration;

use bytes::Bytes;
use frontend::{Admission, FrontendConfig, ServeConfig};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fake::{Running, request, start, start_admitting, start_with, until};

/// More than the sockets' buffers hold.
const LARGE: usize = 32 << 20;

fn impatient() -> ServeConfig {
    ServeConfig { write_timeout: Duration::from_millis(400), ..Default::default() }
}

/// Asks for a large answer over HTTP/1.1 and does not read it.
async fn ask_for_much(server: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(server.http).await.expect("connects");
    let head = format!(
        "POST /v2/models/identity/infer HTTP/1.1\r\nHost: t\r\nInference-Header-Content-Length: 0\r\nContent-Length: {LARGE}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("writes");
    stream.write_all(&vec![0; LARGE]).await.expect("writes");
    until(|| server.fake.unwritten() == 1).await;
    stream
}

#[tokio::test]
async fn an_answer_pins_its_model_until_it_was_written() {
    let server = start().await;
    let mut stream = ask_for_much(&server).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.fake.unwritten(), 1, "it is being written");
    let mut taken = 0;
    let mut buffer = vec![0; 1 << 20];
    while taken < LARGE {
        taken += stream.read(&mut buffer).await.expect("readable");
    }
    until(|| server.fake.unwritten() == 0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let server = start_with(FrontendConfig::default(), impatient()).await;
    let stream = ask_for_much(&server).await;
    until(|| server.fake.unwritten() == 0).await;
    drop(stream);
}

#[tokio::test]
async fn an_http_2_client_that_does_not_read_its_answer_is_cut_off() {
    let server = start_with(FrontendConfig::default(), impatient()).await;
    let io = TokioIo::new(TcpStream::connect(server.http).await.expect("connects"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io).await.expect("speaks h2");
    tokio::spawn(connection);
    let request = http::Request::post("http://t/v2/models/identity/infer")
        .header("Inference-Header-Content-Length", "0")
        .body(Full::from(vec![0; LARGE]))
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(server.fake.unwritten(), 1);
    until(|| server.fake.unwritten() == 0).await;
    response.into_body().collect().await.expect_err("the connection was closed in its midst");
}

#[tokio::test]
async fn requests_in_flight_are_bounded_over_all_surfaces() {
    let admission = Admission::new(1, 1 << 30);
    let server = start_admitting(admission, FrontendConfig::default(), ServeConfig::default()).await;
    let slow = server.post("/v2/models/slow/infer", &[], request(&[1.0]));
    let others = async {
        server.fake.wait_for_requests(1).await;
        let refused = server.post("/v2/models/identity/infer", &[], request(&[1.0])).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
        assert!(refused.text().contains("the 1 requests that --max-requests-in-flight allows"), "{}", refused.text());
        let refused = server.call(server.sagemaker, "POST", "/invocations", &[], request(&[1.0])).await;
        assert_eq!(refused.status, 503);
        let refused = server.post("/endpoints/e/invocations", &[], request(&[1.0])).await;
        assert_eq!((refused.status, refused.header("x-amzn-errortype")), (429, "ThrottlingException"));
        assert_eq!(server.get("/v2/models/identity").await.status, 200, "not an inference");
        server.fake.gate.add_permits(1);
    };
    let (answered, ()) = tokio::join!(slow, others);
    assert_eq!(answered.status, 200);
    assert_eq!(server.post("/v2/models/identity/infer", &[], request(&[1.0])).await.status, 200);
}

#[tokio::test]
async fn bytes_of_bodies_are_bounded() {
    let admission = Admission::new(10, 100_000);
    let server = start_admitting(admission, FrontendConfig::default(), ServeConfig::default()).await;
    for _ in 0..3 {
        let headers = [("Inference-Header-Content-Length", "0")];
        let refused = server.post("/v2/models/identity/infer", &headers, vec![0; 1 << 20]).await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.text().contains("100000 bytes that --max-buffered-bytes allows"), "{}", refused.text());
        let answered = server.post("/v2/models/identity/infer", &headers, vec![0; 80_000]).await;
        assert_eq!(answered.status, 200, "all of it was given back");
    }
}

//! Connections: HTTP/2 without TLS, many requests on one, and bodies that come in pieces.

use bytes::Bytes;
use e2e::{FolderStore, Server, Store, echo, fp32, infer};
use futures::future::join_all;
use http::{Request, Version, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

async fn serve() -> (FolderStore, Server) {
    let store = FolderStore::new();
    (0..8).for_each(|number| store.put(&format!("m{number}"), &echo()));
    let server = store.launch().start().await;
    (store, server)
}

fn request(server: &Server, target: &str) -> http::request::Builder {
    Request::post(server.url("/invocations")).header("x-amzn-sagemaker-target-model", target)
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_carries_many_cold_requests_at_once() {
    let (_store, server) = serve().await;
    let stream = TcpStream::connect(server.address()).await.expect("the server listens");
    let connection = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = connection.expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    let requests = (0..64).map(|number| {
        let body = infer(&[fp32("X", &[number as f32])]).to_string();
        let request =
            request(&server, &format!("m{}", number % 8)).body(Full::<Bytes>::from(body)).expect("a valid request");
        let mut sender = sender.clone();
        async move {
            let response = sender.send_request(request).await.expect("an answer");
            assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
            let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
            let answer: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(answer["outputs"][0]["data"], serde_json::json!([f64::from(number)]));
            assert_eq!(answer["model_name"], format!("m{}", number % 8));
        }
    });
    join_all(requests).await;
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("panoply_model_loads_total", &[]), 8.0);
    assert_eq!(metrics.sum("nv_inference_request_success", &[]), 64.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_come_in_pieces_of_any_size() {
    let (_store, server) = serve().await;
    let body = infer(&[fp32("X", &[0.25, -8.0])]).to_string().into_bytes();
    for piece in [1, 7, 4096] {
        let stream = TcpStream::connect(server.address()).await.expect("the server listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("the server speaks HTTP/1.1");
        tokio::spawn(connection);
        let frames: Vec<Result<_, std::convert::Infallible>> =
            body.chunks(piece).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        let pieces = StreamBody::new(futures::stream::iter(frames));
        let request =
            request(&server, "m0").header(header::HOST, server.address()).body(pieces).expect("a valid request");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200, "pieces of {piece}");
        let answer = response.into_body().collect().await.expect("a whole answer").to_bytes();
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(answer["outputs"][0]["data"], serde_json::json!([0.25, -8.0]), "pieces of {piece}");
    }
    server.stop().await;
}

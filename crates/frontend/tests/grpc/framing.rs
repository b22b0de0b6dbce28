//! `ModelInfer` as bytes on an HTTP/2 connection: frames of any size, and what no good client sends.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use frontend::{Admission, FrontendConfig, ServeConfig};
use futures::stream::{self, StreamExt};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use protocol::grpc_service::ModelInferResponse;
use tokio::net::TcpStream;

use crate::{Running, request, start, start_with};

/// What came back: the status in head or trailers, the head, and the body.
struct Answer {
    http: u16,
    grpc: String,
    message: String,
    head: HeaderMap,
    body: Bytes,
}

fn framed(model: &str, values: &[f32]) -> Bytes {
    let message = request(model, values).encode_to_vec();
    [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat().into()
}

async fn call(server: &Running, headers: &[(&'static str, &str)], body: Body) -> Answer {
    call_of("ModelInfer", server, headers, body).await
}

async fn call_of(name: &str, server: &Running, headers: &[(&'static str, &str)], body: Body) -> Answer {
    let stream = TcpStream::connect(server.address).await.expect("the server listens");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    let url = format!("http://{}/inference.GRPCInferenceService/{name}", server.address);
    let mut call = Request::post(url).header("te", "trailers");
    for (name, value) in headers {
        call = call.header(*name, *value);
    }
    let response = sender.send_request(call.body(body).expect("a valid request")).await.expect("an answer");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole answer");
    let field = |name: &str| {
        let of = |headers: &HeaderMap| Some(headers.get(name)?.to_str().expect("ASCII").to_owned());
        body.trailers().and_then(of).or_else(|| of(&head.headers)).unwrap_or_default()
    };
    let (grpc, message) = (field("grpc-status"), field("grpc-message"));
    Answer { http: head.status.as_u16(), grpc, message, head: head.headers, body: body.to_bytes() }
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

#[tokio::test]
async fn messages_come_in_pieces_of_any_size_and_leave_around_their_tensors() {
    let server = start().await;
    let values: Vec<f32> = (0..5000u16).map(f32::from).collect();
    let whole = framed("identity", &values);
    for size in [1, 4, 999, 16_384, whole.len()] {
        let pieces: Vec<_> = whole.chunks(size).map(Bytes::copy_from_slice).map(Ok::<_, Infallible>).collect();
        let answer = call(&server, &[GRPC], Body::from_stream(stream::iter(pieces))).await;
        assert_eq!((answer.http, answer.grpc.as_str()), (200, "0"), "{size}");
        assert_eq!(answer.head["content-type"], "application/grpc");
        assert!(!answer.head.contains_key("grpc-status"), "it is in the trailers");
        assert_eq!(answer.body[1..5], (answer.body.len() as u32 - 5).to_be_bytes());
        let message = ModelInferResponse::decode(answer.body.slice(5..)).expect("a message");
        assert_eq!(message.raw_output_contents[0], whole[whole.len() - 4 * values.len()..]);
    }
}

#[tokio::test]
async fn what_is_no_call_is_refused_with_a_status_in_the_head() {
    let server = start().await;
    let good = || Body::from(framed("identity", &[1.0]));
    for content_type in ["application/json", "application/grpc-web"] {
        assert_eq!(call(&server, &[("content-type", content_type)], good()).await.http, 415, "{content_type}");
    }
    type Case<'a> = (&'a [(&'static str, &'a str)], Body, &'a str, &'a str);
    let cases: [Case<'_>; 5] = [
        (&[GRPC], Body::empty(), "3", "no%20request%20message"),
        (&[GRPC], Body::from(&b"{\"inputs\":[]}"[..]), "3", "not%20the%20gRPC%20framing"),
        (&[GRPC], Body::from(&[0, 0, 0, 0, 2, 0xff, 0xff][..]), "3", "cannot%20be%20read"),
        (&[GRPC, ("grpc-encoding", "br")], good(), "12", "not%20supported"),
        (&[GRPC, ("grpc-timeout", "soon")], good(), "3", "grpc-timeout"),
    ];
    for (headers, body, status, text) in cases {
        let answer = call(&server, headers, body).await;
        assert_eq!((answer.http, answer.grpc.as_str()), (200, status), "{text}");
        assert!(answer.message.contains(text), "'{text}' is not in: {}", answer.message);
        assert_eq!(answer.head.contains_key("grpc-accept-encoding"), status == "12");
    }
}

#[tokio::test]
async fn a_message_that_stalls_is_given_up() {
    let config = FrontendConfig { body_timeout: Duration::from_millis(50), ..FrontendConfig::default() };
    let server = start_with(Admission::default(), config, ServeConfig::default()).await;
    for name in ["ModelInfer", "ModelStreamInfer", "ModelMetadata"] {
        let start = framed("identity", &[1.0]).slice(..20);
        let body = stream::iter([Ok::<_, Infallible>(start)]).chain(stream::pending());
        let answer = call_of(name, &server, &[GRPC], Body::from_stream(body)).await;
        assert_eq!(answer.grpc, "4", "{name}");
        assert!(answer.message.contains("did%20not%20arrive%20within%200.05"), "{name}: {}", answer.message);
    }
}

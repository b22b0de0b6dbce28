//! `ModelInfer` as bytes on an HTTP/2 connection: frames of any size, and what no good client sends.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes};
use frontend::{Admission, FrontendConfig, ServeConfig};
use futures::stream::{self, StreamExt};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use protocol::grpc_service::{ModelInferResponse, ModelStreamInferResponse};
use tokio::net::TcpStream;

use crate::fake::until;
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
    framed_as(0, &request(model, values).encode_to_vec())
}

fn framed_as(flag: u8, message: &[u8]) -> Bytes {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat().into()
}

/// The messages of a stream's answer.
fn messages(mut body: Bytes) -> Vec<ModelStreamInferResponse> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let (flag, length) = (body.get_u8(), body.get_u32());
        assert_eq!(flag, 0);
        messages.push(ModelStreamInferResponse::decode(body.split_to(length as usize)).expect("a message"));
    }
    messages
}

async fn call(server: &Running, headers: &[(&'static str, &str)], body: Body) -> Answer {
    call_of("ModelInfer", server, headers, body).await
}

/// The answer as far as its head.
async fn begin(
    name: &str,
    server: &Running,
    headers: &[(&'static str, &str)],
    body: Body,
) -> http::Response<hyper::body::Incoming> {
    let stream = TcpStream::connect(server.address).await.expect("the server listens");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    let url = format!("http://{}/inference.GRPCInferenceService/{name}", server.address);
    let mut call = Request::post(url).header("te", "trailers");
    for (name, value) in headers {
        call = call.header(*name, *value);
    }
    sender.send_request(call.body(body).expect("a valid request")).await.expect("an answer")
}

async fn call_of(name: &str, server: &Running, headers: &[(&'static str, &str)], body: Body) -> Answer {
    let response = begin(name, server, headers, body).await;
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
async fn a_message_of_a_stream_that_is_no_request_is_refused_alone() {
    let server = start().await;
    // Each pair of bytes is an input, which takes hundreds in memory.
    let bomb = [0x2a, 0].repeat(100_000);
    let packed = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, &bomb).expect("in memory");
        encoder.finish().expect("in memory")
    };
    assert!(packed.len() < 2000);
    let wrong = [framed_as(0, &bomb), framed_as(1, &packed), framed_as(0, &[0xff; 3]), framed_as(1, b"not packed")];
    let good = framed("identity", &[1.0]);
    let body = [&wrong.concat()[..], &good].concat();
    for size in [3, 1000, body.len()] {
        let pieces: Vec<_> = body.chunks(size).map(Bytes::copy_from_slice).map(Ok::<_, Infallible>).collect();
        let body = Body::from_stream(stream::iter(pieces));
        let answer = call_of("ModelStreamInfer", &server, &[GRPC, ("grpc-encoding", "gzip")], body).await;
        assert_eq!((answer.http, answer.grpc.as_str()), (200, "0"), "{size}: {}", answer.message);
        let answers = messages(answer.body);
        let texts =
            ["more than the 16384 inputs", "more than the 16384 inputs", "cannot be read", "encoding 'gzip'", ""];
        assert_eq!(answers.len(), texts.len());
        for (answer, text) in answers.iter().zip(texts) {
            assert!(answer.error_message.contains(text), "'{text}' is not in: {}", answer.error_message);
            assert!(!text.is_empty() || answer.error_message.is_empty(), "{}", answer.error_message);
        }
    }
}

#[tokio::test]
async fn the_head_of_a_stream_is_checked_as_a_calls() {
    let server = start().await;
    let good = || Body::from(framed("identity", &[1.0]));
    assert_eq!(call_of("ModelStreamInfer", &server, &[("content-type", "text/html")], good()).await.http, 415);
    let headers = [GRPC, ("grpc-encoding", "br")];
    let answer = call_of("ModelStreamInfer", &server, &headers, good()).await;
    assert_eq!((answer.http, answer.grpc.as_str()), (200, "12"));
    assert!(answer.head.contains_key("grpc-accept-encoding"));
    let body = Body::from(&b"{\"inputs\":[]}"[..]);
    let answer = call_of("ModelStreamInfer", &server, &[GRPC], body).await;
    assert_eq!(answer.grpc, "3");
    assert!(answer.message.contains("not%20the%20gRPC%20framing"), "{}", answer.message);
}

#[tokio::test]
async fn what_an_answer_lies_in_lives_until_its_last_part_was_written() {
    let server = start().await;
    let large = request("identity", &[0.0; 4 << 20]);
    let mut message = request("identity", &[1.0]);
    message.inputs.splice(..0, large.inputs);
    message.inputs[1].name = "INPUT1".to_owned();
    message.raw_input_contents.splice(..0, large.raw_input_contents);
    let message = message.encode_to_vec();
    for name in ["ModelInfer", "ModelStreamInfer"] {
        let response = begin(name, &server, &[GRPC], Body::from(framed_as(0, &message))).await;
        // The client does not read, and there are 16 MiB that do not fit the connection's buffers.
        until(|| server.fake.unwritten() == 1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(server.fake.unwritten(), 1, "{name}");
        let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
        assert!(body.len() > 16 << 20, "{name}");
        until(|| server.fake.unwritten() == 0).await;
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

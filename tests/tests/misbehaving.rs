//! Clients that misbehave, or are many, over HTTP and gRPC: the others are served all the same, and memory stays bounded.
//!
//! Times are compared within one run: a bystander's median while the others are at it may be at most [`FACTOR`] times what it
//! is without them, or [`NOISE`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::{FolderStore, Launch, Server, Store, echo, until};
use futures::future::join_all;
use futures::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::grpc::{Client, connect, floats, values};

/// How much slower the others may become.
const FACTOR: f64 = 5.0;
/// What a busy machine alone may make of it. Who waits for one of the others waits for seconds.
const NOISE: Duration = Duration::from_millis(250);
/// Calls that a median is taken of.
const CALLS: usize = 40;
const TARGET: &str = "echo.tar.gz";
const MIB: u64 = 1 << 20;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

struct Scene {
    _store: FolderStore,
    server: Server,
    grpc: Client,
}

impl Scene {
    async fn new(adjust: impl FnOnce(Launch) -> Launch) -> Self {
        let store = FolderStore::new();
        store.put(TARGET, &echo());
        let server = adjust(store.launch()).start().await;
        let grpc = connect(&server).await;
        let scene = Scene { _store: store, server, grpc };
        scene.medians().await;
        scene
    }

    /// A bystander's median time over HTTP and over gRPC.
    async fn medians(&self) -> [Duration; 2] {
        let mut times = [Vec::new(), Vec::new()];
        let mut grpc = self.grpc.clone();
        for _ in 0..CALLS {
            let start = Instant::now();
            crate::ask_echo(&self.server, TARGET, &[1.0]).await.ok();
            times[0].push(start.elapsed());
            let start = Instant::now();
            let answer = grpc.model_infer(floats(TARGET, &[2.0])).await.expect("an answer");
            times[1].push(start.elapsed());
            assert_eq!(values(answer.get_ref()), [2.0]);
        }
        times.map(|mut times| {
            times.sort_unstable();
            times[CALLS / 2]
        })
    }

    /// Compares the bystander's times during what `others` do with those before and after.
    async fn assert_unharmed<T>(&self, what: &str, others: impl AsyncFnOnce() -> T, end: impl AsyncFnOnce(T)) {
        let before = self.medians().await;
        let begun = others().await;
        let during = self.medians().await;
        end(begun).await;
        let after = self.medians().await;
        for (port, name) in ["HTTP", "gRPC"].into_iter().enumerate() {
            let usual = before[port].max(after[port]);
            eprintln!("{what}, {name}: {:?} usually, {:?} meanwhile", usual, during[port]);
            assert!(
                during[port] < usual.mul_f64(FACTOR).max(NOISE),
                "{what}: over {name} a bystander waits {:?} instead of {usual:?}",
                during[port]
            );
        }
    }

    async fn until_idle(&self) {
        until("nothing is in flight", async || {
            (self.server.metrics().await.sum("panoply_requests_in_flight", &[]) == 0.0).then_some(())
        })
        .await;
    }
}

/// A request's message over gRPC behind its prefix.
fn framed(data: &[f32]) -> Bytes {
    let message = floats(TARGET, data).encode_to_vec();
    [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat().into()
}

fn call<B>(server: &Server, body: B) -> Request<B> {
    let url = format!("http://{}/inference.GRPCInferenceService/ModelInfer", server.grpc_address());
    let request = Request::post(url).header("content-type", "application/grpc").header("te", "trailers");
    request.body(body).expect("a valid request")
}

fn post<B>(server: &Server, json_length: usize, body: B) -> Request<B> {
    let request = Request::post(format!("/v2/models/{TARGET}/infer")).header("host", server.address());
    request.header("inference-header-content-length", json_length).body(body).expect("a valid request")
}

/// The body of a binary request over HTTP, with an answer of the same size; and where its tensor begins.
fn body(data: &[f32]) -> (Bytes, usize) {
    let bytes: Vec<u8> = data.iter().flat_map(|number| number.to_le_bytes()).collect();
    let json = serde_json::json!({
        "inputs": [{ "name": "X", "datatype": "FP32", "shape": [data.len()],
                     "parameters": { "binary_data_size": bytes.len() } }],
        "parameters": { "binary_data_output": true },
    });
    let (body, length) = e2e::binary_request(&json, &[&bytes]);
    (body.into(), length)
}

/// One byte after the other, with a pause between them.
fn trickle(
    bytes: Bytes,
    pause: Duration,
) -> impl http_body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + use<> {
    let bytes = stream::unfold((bytes, pause), async |(mut bytes, pause)| {
        if bytes.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let first = bytes.split_to(1);
        Some((Ok(Frame::data(first)), (bytes, pause)))
    });
    StreamBody::new(Box::pin(bytes))
}

async fn over_http<B>(server: &Server, request: Request<B>) -> hyper::Result<Response<Incoming>>
where
    B: http_body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    let stream = TcpStream::connect(server.address()).await.expect("the server listens");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}

async fn over_grpc<B>(server: &Server, request: Request<B>, window: u32) -> hyper::Result<Response<Incoming>>
where
    B: http_body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(server.grpc_address()).await.expect("the server listens");
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.initial_stream_window_size(window).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_send_a_byte_a_second_take_no_more_than_their_bytes() {
    const SLOW: usize = 200;
    let scene = Scene::new(|launch| launch).await;
    let server = &scene.server;
    let (before, pause) = (server.memory(), Duration::from_secs(1));
    let slow = async || {
        let (bytes, json_length) = body(&[1.0; 1000]);
        let mut slow = tokio::task::JoinSet::new();
        for number in 0..SLOW {
            let address = if number % 2 == 0 { server.address() } else { server.grpc_address() };
            let stream = TcpStream::connect(address).await.expect("the server listens");
            let (http, grpc) = (
                post(server, json_length, trickle(bytes.clone(), pause)),
                call(server, trickle(framed(&[1.0]), pause)),
            );
            slow.spawn(async move {
                if number % 2 == 0 {
                    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
                    let _ = tokio::join!(sender.send_request(http), connection);
                } else {
                    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
                    let (mut sender, connection) = handshake.expect("HTTP/2");
                    let _ = tokio::join!(sender.send_request(grpc), connection);
                }
            });
        }
        until("all are at it", async || {
            (server.metrics().await.sum("panoply_requests_in_flight", &[]) >= SLOW as f64).then_some(())
        })
        .await;
        let grown = server.memory().saturating_sub(before);
        assert!(grown < 64 * MIB, "{SLOW} requests of some bytes each took {grown} bytes");
        slow
    };
    scene.assert_unharmed("a byte a second", slow, async |mut slow| slow.shutdown().await).await;
    scene.until_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_read_their_answers_are_closed() {
    const DEAF: usize = 32;
    const NUMBERS: usize = 2 << 20;
    let scene = Scene::new(|launch| launch.option("--write-timeout", "3s")).await;
    let server = &scene.server;
    let before = server.memory();
    let (bytes, json_length) = body(&vec![1.0; NUMBERS]);
    let message = framed(&vec![1.0; NUMBERS]);
    let deaf = async || {
        let answers = (0..DEAF).map(async |number| {
            let answer = if number % 2 == 0 {
                over_http(server, post(server, json_length, Full::new(bytes.clone()))).await
            } else {
                over_grpc(server, call(server, Full::new(message.clone())), 1024).await
            };
            let answer = answer.expect("an answer's head");
            assert_eq!(answer.status(), 200);
            answer
        });
        join_all(answers).await
    };
    let heard = async |answers: Vec<Response<Incoming>>| {
        // All of it would be 256 MiB.
        until("the server has given them up", async || (server.memory() < before + 64 * MIB).then_some(())).await;
        for answer in answers {
            let rest = tokio::time::timeout(e2e::PATIENCE, answer.into_body().collect()).await.expect("an end");
            assert!(rest.is_err(), "an answer that nobody took was cut");
        }
    };
    scene.assert_unharmed("answers that nobody reads", deaf, heard).await;
    scene.until_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_cost_little() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the hard limit");
    // The rest is for everything else that the test and the server have open.
    let allowed = limit.maximum.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let count = allowed.saturating_sub(1000).min(10_000);
    if count < 10_000 {
        eprintln!("the limit on open files is {allowed}: {count} connections instead of 10000");
    }
    let scene = Scene::new(|launch| launch).await;
    let server = &scene.server;
    let before = server.memory();
    let idle = async || {
        let mut idle = Vec::with_capacity(count);
        for number in 0..count {
            let is_grpc = number % 2 == 1;
            let address = if is_grpc { server.grpc_address() } else { server.address() };
            let mut stream = TcpStream::connect(address).await.expect("the server accepts it");
            if is_grpc {
                stream.write_all(PREFACE).await.expect("taken");
            }
            idle.push(stream);
        }
        idle
    };
    let end = async |idle: Vec<TcpStream>| {
        let each = server.memory().saturating_sub(before) / count as u64;
        eprintln!("an idle connection takes {each} bytes");
        assert!(each < 64 << 10, "an idle connection takes {each} bytes");
        drop(idle);
    };
    scene.assert_unharmed("idle connections", idle, end).await;
}

/// What a client of a full machine may wait for packets that are sent again.
const RESENT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_at_once_are_all_answered_and_none_waits_for_the_others() {
    const CLIENTS: usize = 1000;
    const EACH: usize = 2;
    let scene = Scene::new(|launch| launch).await;
    let server = &scene.server;
    let before = server.memory();
    for port in ["HTTP", "gRPC"] {
        let (bytes, json_length) = body(&[1.0; 256]);
        let (bytes, message) = (Arc::new(bytes), Arc::new(framed(&[1.0; 256])));
        let clients = (0..CLIENTS).map(async |_| {
            let mut worst = Duration::ZERO;
            for _ in 0..EACH {
                let start = Instant::now();
                let answer = if port == "HTTP" {
                    over_http(server, post(server, json_length, Full::new(Bytes::clone(&bytes)))).await
                } else {
                    over_grpc(server, call(server, Full::new(Bytes::clone(&message))), 1 << 20).await
                };
                let answer = answer.expect("an answer");
                assert_eq!(answer.status(), 200, "{port}");
                let whole = answer.into_body().collect().await.expect("a whole answer");
                assert!(whole.to_bytes().len() >= 1024, "{port}");
                worst = worst.max(start.elapsed());
            }
            worst
        });
        let mut worst = join_all(clients).await;
        worst.sort_unstable();
        let (median, last) = (worst[CLIENTS / 2], worst[CLIENTS - 1]);
        eprintln!("{port}: the worst answer took a client {median:?} in the median, {last:?} at most");
        // A packet that the kernel dropped comes again after a second, whoever listens.
        let bound = median.mul_f64(FACTOR).max(RESENT);
        assert!(last < bound, "{port}: one client waited {last:?}, most no more than {median:?}");
    }
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 256 * MIB, "{CLIENTS} clients left {grown} bytes");
    scene.until_idle().await;
}

//! Sockets: accepts connections, speaks HTTP/1.1 and HTTP/2 on them, and drains them when told to.
//!
//! hyper is driven directly because `axum::serve` leaves out what large messages need: no delay, wide HTTP/2 windows.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures::FutureExt;
use http::{HeaderValue, Request, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::answers::Answers;
use crate::write_timeout::WriteTimeout;

/// Bounds on connections, and how they end.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Connections open at once; further ones wait in the kernel's backlog (`--max-connections`).
    pub max_connections: usize,
    /// How long a connection may take to send a request's head, and so also how long it may idle between requests
    /// (`--idle-timeout`). On HTTP/2: after how long without a sign the client is asked for one.
    pub idle_timeout: Duration,
    /// A connection is closed when nothing of an answer could be written to it for so long (`--write-timeout`).
    pub write_timeout: Duration,
    /// After the signal to drain: how long new connections and requests are still accepted, while load balancers notice.
    pub drain_grace: Duration,
    /// After that: how long requests in flight may take to finish.
    pub drain_timeout: Duration,
}

impl Default for ServeConfig {
    fn default() -> Self {
        ServeConfig {
            max_connections: 16_384,
            // Longer than the keep-alive of common load balancers and client pools, so that they are the ones to close.
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            drain_grace: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// How draining ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that still carried a request when the time was up, and were cut.
    pub cut: usize,
}

/// HTTP/2 flow control: sizes at which, as measured, a 600 KB message needs no round trip for window updates.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
const FRAME_SIZE: u32 = 1 << 20;
/// How long a connection that was accepted but has not said anything may keep a drain waiting for its first request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// Pause after an error of `accept` that is not one connection's own, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The stages of an end, each a token that is cancelled when the stage begins.
#[derive(Clone)]
struct Stages {
    /// Answers say `Connection: close`.
    drain: CancellationToken,
    /// Connections end after the request in flight.
    finish: CancellationToken,
    /// Connections end.
    cut: CancellationToken,
}

/// Serves `router` on `listener` until `drain` is cancelled and everything accepted has been answered: for
/// [`ServeConfig::drain_grace`] all goes on, with `Connection: close` on the answers; then the listener closes, idle
/// connections are closed and requests in flight get [`ServeConfig::drain_timeout`] to finish.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    drain: CancellationToken,
    config: ServeConfig,
) -> DrainReport {
    let stages = Stages { drain: drain.clone(), finish: CancellationToken::new(), cut: CancellationToken::new() };
    let server = Server {
        router,
        builder: builder(&config),
        write_timeout: config.write_timeout,
        stages,
        permits: Arc::new(Semaphore::new(config.max_connections)),
        connections: TaskTracker::new(),
        cut: Arc::default(),
    };
    let end_of_grace = async {
        drain.cancelled().await;
        tokio::time::sleep(config.drain_grace).await;
    };
    tokio::select! {
        () = server.accept_all(&listener) => {}
        () = end_of_grace => {}
    }
    server.accept_backlog(&listener);
    drop(listener);
    server.finish(config.drain_timeout).await
}

fn builder(config: &ServeConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Vectored writes: tensors reach the kernel from where they lie.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(config.idle_timeout).writev(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(config.idle_timeout)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_SIZE);
    builder
}

struct Server {
    router: Router,
    builder: Builder<TokioExecutor>,
    write_timeout: Duration,
    stages: Stages,
    permits: Arc<Semaphore>,
    connections: TaskTracker,
    cut: Arc<AtomicUsize>,
}

impl Server {
    async fn accept_all(&self, listener: &TcpListener) {
        loop {
            let permit = self.permits.clone().acquire_owned().await.expect("invariant: the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, _)) => self.spawn(stream, permit),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes what the kernel has accepted on our behalf: closing the listener would reset it.
    fn accept_backlog(&self, listener: &TcpListener) {
        while let Ok(permit) = self.permits.clone().try_acquire_owned() {
            match listener.accept().now_or_never() {
                Some(Ok((stream, _))) => self.spawn(stream, permit),
                _ => break,
            }
        }
    }

    fn spawn(&self, stream: TcpStream, permit: tokio::sync::OwnedSemaphorePermit) {
        // Without it the last part of an answer waits for the peer's acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let (router, builder, stages) = (self.router.clone(), self.builder.clone(), self.stages.clone());
        let (cut, timeout) = (self.cut.clone(), self.write_timeout);
        let answers = Arc::new(Answers::default());
        self.connections.spawn(async move {
            let io = TokioIo::new(WriteTimeout::new(stream, timeout));
            tokio::select! {
                () = serve_connection(io, router, builder, stages, cut, answers.clone()) => {}
                () = answers.stalled(timeout) => tracing::debug!(?timeout, "an answer's client took nothing of it"),
            }
            drop(permit);
        });
    }

    async fn finish(self, timeout: Duration) -> DrainReport {
        self.stages.finish.cancel();
        self.connections.close();
        if tokio::time::timeout(timeout, self.connections.wait()).await.is_err() {
            self.stages.cut.cancel();
            self.connections.wait().await;
        }
        DrainReport { cut: self.cut.load(Ordering::Relaxed) }
    }
}

/// Whether `accept` failed because the peer was gone already.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn serve_connection(
    io: TokioIo<WriteTimeout<TcpStream>>,
    router: Router,
    builder: Builder<TokioExecutor>,
    stages: Stages,
    cut: Arc<AtomicUsize>,
    answers: Arc<Answers>,
) {
    let first_request = CancellationToken::new();
    let (began, drain) = (first_request.clone(), stages.drain.clone());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        began.cancel();
        respond(router.clone(), request, drain.clone(), answers.clone())
    });
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    tokio::select! {
        result = connection.as_mut() => return log_end(result),
        () = stages.finish.cancelled() => {}
    }
    // A connection that has not been heard yet may have its first request under way.
    let heard = tokio::time::timeout(FIRST_REQUEST, first_request.cancelled());
    tokio::select! {
        result = connection.as_mut() => return log_end(result),
        _ = heard => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        result = connection.as_mut() => log_end(result),
        () = stages.cut.cancelled() => {
            cut.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn respond(
    router: Router,
    request: Request<Incoming>,
    drain: CancellationToken,
    answers: Arc<Answers>,
) -> Result<Response, Infallible> {
    let version = request.version();
    let mut response = router.oneshot(request.map(Body::new)).await?;
    if version > Version::HTTP_11 {
        return Ok(response.map(|body| answers.watch(body)));
    }
    if drain.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn log_end(result: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = result {
        tracing::debug!(error, "a connection ended early");
    }
}

//! Sockets: accepts connections, speaks HTTP/1.1 and HTTP/2 on them, and drains them when told to.
//!
//! hyper is driven directly because `axum::serve` leaves out what large messages need: no delay, wide HTTP/2 windows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use futures::FutureExt;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::connection::{Connection, Stages};
use crate::eager::Eager;
use crate::tls::Tls;

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
    /// How connections that nobody uses are kept, and when they end.
    pub keep_alive: KeepAlive,
    /// TLS, where the port speaks it.
    pub tls: Option<Arc<Tls>>,
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
            keep_alive: KeepAlive::default(),
            tls: None,
        }
    }
}

/// How HTTP/2 connections are kept alive, and how long they may live.
#[derive(Clone, Debug)]
pub struct KeepAlive {
    /// After how long without a sign a client is asked for one (`--grpc-keepalive-time`); [`ServeConfig::idle_timeout`] when
    /// `None`.
    pub interval: Option<Duration>,
    /// How long it may take to give one (`--grpc-keepalive-timeout`).
    pub timeout: Duration,
    /// After how long a connection is told to end, give or take a tenth (`--grpc-max-connection-age`).
    pub max_age: Option<Duration>,
    /// How long its calls may take to finish then (`--grpc-max-connection-age-grace`).
    pub max_age_grace: Option<Duration>,
}

impl Default for KeepAlive {
    fn default() -> Self {
        // gRPC's own defaults.
        KeepAlive { interval: None, timeout: Duration::from_secs(20), max_age: None, max_age_grace: None }
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
/// Pause after an error of `accept` that is not one connection's own, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    let _fresh = config.tls.clone().map(|tls| AbortOnDropHandle::new(tokio::spawn(tls.keep_fresh())));
    let server = Server {
        router,
        builder: builder(&config),
        permits: Arc::new(Semaphore::new(config.max_connections)),
        config: Arc::new(config.clone()),
        stages,
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

fn builder(config: &ServeConfig) -> Builder<Eager> {
    let mut builder = Builder::new(Eager);
    // Vectored writes: tensors reach the kernel from where they lie.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(config.idle_timeout).writev(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(config.keep_alive.interval.unwrap_or(config.idle_timeout))
        .keep_alive_timeout(config.keep_alive.timeout)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_SIZE);
    builder
}

struct Server {
    router: Router,
    builder: Builder<Eager>,
    config: Arc<ServeConfig>,
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
        let connection = Connection {
            router: self.router.clone(),
            builder: self.builder.clone(),
            config: self.config.clone(),
            stages: self.stages.clone(),
            cut: self.cut.clone(),
            permit,
        };
        self.connections.spawn(connection.serve(stream));
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

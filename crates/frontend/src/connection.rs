//! One connection's life: the handshake, requests, and the ends that it may come to.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use crate::answers::Answers;
use crate::eager::Eager;
use crate::serve::ServeConfig;
use crate::tls::Tls;
use crate::unread;
use crate::write_timeout::WriteTimeout;

/// How long a connection that was accepted but has not said anything may keep a drain waiting for its first request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// The stages of an end, each a token that is cancelled when the stage begins.
#[derive(Clone)]
pub(crate) struct Stages {
    /// Answers say `Connection: close`.
    pub(crate) drain: CancellationToken,
    /// Connections end after the request in flight.
    pub(crate) finish: CancellationToken,
    /// Connections end.
    pub(crate) cut: CancellationToken,
}

/// What a connection needs to be served.
pub(crate) struct Connection {
    pub(crate) router: Router,
    pub(crate) builder: Builder<Eager>,
    pub(crate) config: Arc<ServeConfig>,
    pub(crate) stages: Stages,
    /// Counts connections that were cut with a request in flight.
    pub(crate) cut: Arc<AtomicUsize>,
    /// Its place among those that may be open at once.
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Serves until either side ends it.
    pub(crate) async fn serve(self, stream: TcpStream) {
        match self.config.tls.clone() {
            None => self.speak(stream).await,
            Some(tls) => {
                if let Some(stream) = self.shake_hands(&tls, stream).await {
                    self.speak(stream).await;
                }
            }
        }
    }

    /// `None` for a client that cannot, or takes too long.
    async fn shake_hands(&self, tls: &Tls, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let ending = async {
            self.stages.finish.cancelled().await;
            tokio::time::sleep(FIRST_REQUEST).await;
        };
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(self.config.idle_timeout, tls.accept(stream)) => outcome,
            () = ending => return None,
        };
        match outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::debug!(%error, "a client's TLS handshake failed");
                None
            }
        }
    }

    async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let timeout = self.config.write_timeout;
        let answers = Arc::new(Answers::default());
        let io = TokioIo::new(WriteTimeout::new(stream, timeout));
        tokio::select! {
            () = self.exchange(io, answers.clone()) => {}
            () = answers.stalled(timeout) => tracing::debug!(?timeout, "an answer's client took nothing of it"),
        }
        drop(self.permit);
    }

    /// Answers requests until the connection ends, is told to finish, or is too old.
    async fn exchange<S>(&self, io: TokioIo<WriteTimeout<S>>, answers: Arc<Answers>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Connection { config, stages, .. } = self;
        let first_request = CancellationToken::new();
        let (router, began, drain) = (self.router.clone(), first_request.clone(), stages.drain.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            began.cancel();
            respond(router.clone(), request, drain.clone(), answers.clone())
        });
        let mut connection = std::pin::pin!(self.builder.serve_connection(io, service));
        let is_old = tokio::select! {
            result = connection.as_mut() => return log_end(result),
            () = stages.finish.cancelled() => false,
            () = sleep(config.keep_alive.max_age.map(scattered)) => true,
        };
        if !is_old {
            // A connection that has not been heard yet may have its first request under way.
            let heard = tokio::time::timeout(FIRST_REQUEST, first_request.cancelled());
            tokio::select! {
                result = connection.as_mut() => return log_end(result),
                _ = heard => {}
            }
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            result = connection.as_mut() => log_end(result),
            () = stages.cut.cancelled() => {
                self.cut.fetch_add(1, Ordering::Relaxed);
            }
            () = sleep(config.keep_alive.max_age_grace.filter(|_| is_old)) => {
                tracing::debug!("a connection past its age still had a call when its grace was over");
            }
        }
    }
}

/// Sleeps, for ever without a time.
async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// A time within a tenth of this one, so that connections that began together do not end together.
fn scattered(time: Duration) -> Duration {
    let thousandth = (Uuid::new_v4().as_u128() % 1000) as f64 / 1000.0;
    time.mul_f64(0.9 + 0.2 * thousandth)
}

async fn respond(
    router: Router,
    request: Request<Incoming>,
    drain: CancellationToken,
    answers: Arc<Answers>,
) -> Result<Response, Infallible> {
    if request.version() > Version::HTTP_11 {
        let response = router.oneshot(request.map(Body::new)).await?;
        return Ok(response.map(|body| answers.watch(body)));
    }
    let (request, unread) = unread::watch(request);
    let mut response = router.oneshot(request).await?;
    if !unread.discard().await || drain.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn log_end(result: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = result {
        tracing::debug!(error, "a connection ended early");
    }
}

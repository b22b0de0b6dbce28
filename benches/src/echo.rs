//! A server that is nothing but HTTP: hyper as the front end configures it, sending each body back.
//!
//! What it takes is the price of sockets and HTTP; what Panoply takes beyond it is Panoply's own. It runs in a process of
//! its own, like the server it is compared with.

use std::convert::Infallible;
use std::io::Write;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use hyper::header::CONTENT_LENGTH;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};

/// Serves on a free port, whose address goes to standard output, until it is killed.
///
/// # Errors
/// When the port cannot be bound.
pub fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("there is no free port")?;
        println!("{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve_connection(stream));
        }
    })
}

async fn serve_connection(stream: TcpStream) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).writev(true);
    // How a connection ends is the client's business.
    let _ = builder.serve_connection(TokioIo::new(stream), hyper::service::service_fn(echo)).await;
}

async fn echo(mut request: Request<Incoming>) -> Result<Response<Collected<Bytes>>, Infallible> {
    let length = request.headers_mut().remove(CONTENT_LENGTH);
    let body = request.into_body().collect().await.unwrap_or_default();
    let mut response = Response::new(body);
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    Ok(response)
}

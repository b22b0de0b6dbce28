//! What a handler leaves unread of an HTTP/1 request's body, because it refused the request, say. On a connection that closes
//! with such bytes on their way, the client may lose the answer; and one that has sent them all takes the connection for one
//! that it can use again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;

/// How long the rest of a body is still read.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// The rest of a request's body, once nobody wants it any more.
pub(crate) struct Unread<B>(Arc<Mutex<Option<Rest<B>>>>);

struct Rest<B> {
    body: B,
    /// The client sends it without being told to go on.
    is_coming: bool,
}

/// The request for a handler, and what the handler will leave of its body.
pub(crate) fn watch<B>(request: Request<B>) -> (Request<Body>, Unread<B>)
where
    B: http_body::Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin + 'static,
{
    let rest = Arc::new(Mutex::new(None));
    let is_coming = !request.headers().contains_key(header::EXPECT);
    let unread = Unread(rest.clone());
    (request.map(|body| Body::new(Watched { rest: Some(Rest { body, is_coming }), left: rest })), unread)
}

impl<B: http_body::Body + Unpin> Unread<B> {
    /// Reads on for a moment. Whether the connection is good for another request: false when more may still come.
    pub(crate) async fn discard(self) -> bool {
        let Some(Rest { mut body, is_coming }) = self.0.lock().take() else { return true };
        let read = async {
            while let Some(frame) = body.frame().await {
                if frame.is_err() {
                    return false;
                }
            }
            true
        };
        is_coming && tokio::time::timeout(DISCARD_TIME, read).await.unwrap_or(false)
    }
}

/// A body that says what was left of it.
struct Watched<B: http_body::Body> {
    /// `Some` until it is dropped.
    rest: Option<Rest<B>>,
    left: Arc<Mutex<Option<Rest<B>>>>,
}

impl<B: http_body::Body + Unpin> http_body::Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        // This is what tells a client to go on.
        rest.is_coming = true;
        Pin::new(&mut rest.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.as_ref().is_none_or(|rest| rest.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), |rest| rest.body.size_hint())
    }
}

impl<B: http_body::Body> Drop for Watched<B> {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take().filter(|rest| !rest.body.is_end_stream()) {
            *self.left.lock() = Some(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream::{self, StreamExt};

    use super::*;

    fn request(parts: usize, then_stalls: bool) -> Request<Body> {
        let parts = stream::iter((0..parts).map(|_| Ok::<_, Infallible>(Bytes::from_static(b"part"))));
        let stall = if then_stalls { stream::pending().left_stream() } else { stream::empty().right_stream() };
        Request::new(Body::from_stream(parts.chain(stall)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_read_whatever_was_read_before() {
        for read in 0..=10 {
            let (mut request, unread) = watch(request(10, false));
            for _ in 0..read {
                request.body_mut().frame().await.expect("ten parts").expect("infallible");
            }
            drop(request);
            assert!(unread.discard().await, "{read} of 10 parts were read");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_given_up() {
        let (request, unread) = watch(request(10, true));
        drop(request);
        assert!(!unread.discard().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_to_be_told_is_told_by_reading_only() {
        for told in [false, true] {
            let mut request = request(2, false);
            request.headers_mut().insert(header::EXPECT, http::HeaderValue::from_static("100-continue"));
            let (mut request, unread) = watch(request);
            if told {
                request.body_mut().frame().await.expect("two parts").expect("infallible");
            }
            drop(request);
            assert_eq!(unread.discard().await, told);
        }
    }
}

//! Bodies: a request's, gathered into one [`Bytes`] within its bounds; a response's, sent frame by frame without a copy.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use inference::{Error, ErrorKind};

use crate::status::{Failure, Refusal};
use crate::telemetry::count_copy;

/// What is reserved at once for a body of many parts, however much its head promises.
const MAX_RESERVE: u64 = 64 << 20;
/// How long a body that is refused is still read.
const DISCARD_TIME: Duration = Duration::from_secs(1);
/// The alignment that runtimes like best for tensors.
const ALIGNMENT: usize = 64;

/// Bounds on reading a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes.
    pub(crate) size: u64,
    /// Until the next part arrives.
    pub(crate) timeout: Duration,
}

/// Reads a whole body. One part is passed on as it is; several are copied together once, so that the byte at `tensors_at`
/// (where binary tensors begin, if there are any) is aligned.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    bounds: Bounds,
    tensors_at: Option<usize>,
) -> Result<Bytes, Failure> {
    check_encoding(headers)?;
    let declared = declared_length(headers);
    let outcome = match check_size(declared.unwrap_or(0), bounds) {
        Ok(()) => gather(&mut body, declared, bounds, tensors_at).await,
        Err(refusal) => Err(refusal),
    };
    // A client that waits for "100 Continue" has not sent anything, and should not be told to.
    let waits = headers.contains_key(header::EXPECT);
    if matches!(&outcome, Err(Failure::Refused(Refusal::BodyTooLarge, _))) && !waits {
        discard(&mut body, bounds).await;
    }
    outcome
}

async fn gather(
    body: &mut Body,
    declared: Option<u64>,
    bounds: Bounds,
    tensors_at: Option<usize>,
) -> Result<Bytes, Failure> {
    let Some(first) = next_part(body, bounds).await? else { return Ok(Bytes::new()) };
    check_size(first.len() as u64, bounds)?;
    let Some(second) = next_part(body, bounds).await? else { return Ok(first) };

    let expected = declared.unwrap_or(0).min(MAX_RESERVE) as usize;
    let mut gathered = BytesMut::with_capacity(expected.max(first.len() + second.len()) + ALIGNMENT);
    let tensors = gathered.as_ptr().addr().wrapping_add(tensors_at.unwrap_or(0));
    let padding = tensors.wrapping_neg() % ALIGNMENT;
    gathered.put_bytes(0, padding);
    gathered.put(first);
    let mut part = Some(second);
    while let Some(bytes) = part {
        check_size((gathered.len() - padding + bytes.len()) as u64, bounds)?;
        gathered.put(bytes);
        part = next_part(body, bounds).await?;
    }
    let whole = gathered.freeze().slice(padding..);
    if let Some(tensors_at) = tensors_at {
        count_copy("body_chunks", whole.len().saturating_sub(tensors_at));
    }
    Ok(whole)
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn check_size(size: u64, bounds: Bounds) -> Result<(), Failure> {
    if size <= bounds.size {
        return Ok(());
    }
    let message = format!(
        "the request's body is larger than the {} bytes that --max-request-size allows; send a smaller batch or raise it",
        bounds.size
    );
    Err(Failure::Refused(Refusal::BodyTooLarge, message))
}

/// Reads on for a moment, because a client that is still sending would not see the answer to a body that is cut off.
async fn discard(body: &mut Body, bounds: Bounds) {
    let read = async {
        let mut left = bounds.size;
        while let Ok(Some(part)) = next_part(body, bounds).await {
            left = left.saturating_sub(part.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    // Past this time the connection is closed under the client's hands.
    let _ = tokio::time::timeout(DISCARD_TIME, read).await;
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Failure> {
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else { return Ok(()) };
    if encoding.as_bytes().is_empty() || encoding.as_bytes().eq_ignore_ascii_case(b"identity") {
        return Ok(());
    }
    let message = format!("Content-Encoding {encoding:?} is not supported; send the body uncompressed");
    Err(Failure::Refused(Refusal::Encoding, message))
}

async fn next_part(body: &mut Body, bounds: Bounds) -> Result<Option<Bytes>, Failure> {
    loop {
        let frame = tokio::time::timeout(bounds.timeout, body.frame()).await.map_err(|_| {
            let seconds = bounds.timeout.as_secs_f64();
            Failure::Refused(
                Refusal::BodyTimeout,
                format!("the next part of the request's body did not arrive within {seconds} s"),
            )
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                return Err(Error::new(ErrorKind::Cancelled, "the request's body broke off").with_source(error).into());
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                // Trailers say nothing that a request needs.
                Err(_) => {}
            },
        }
    }
}

/// A body of known length whose parts go to the socket as they are.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    parts: VecDeque<Bytes>,
}

impl Frames {
    pub(crate) fn new(parts: impl IntoIterator<Item = Bytes>) -> Self {
        Frames { parts: parts.into_iter().filter(|part| !part.is_empty()).collect() }
    }

    fn remaining(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.parts.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining())
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    const BOUNDS: Bounds = Bounds { size: 10, timeout: Duration::from_secs(5) };

    async fn read_parts(parts: &[&'static str], align_at: usize) -> Result<Bytes, Failure> {
        let parts: Vec<_> = parts.iter().map(|part| Ok::<_, Infallible>(Bytes::from_static(part.as_bytes()))).collect();
        read(&HeaderMap::new(), Body::from_stream(stream::iter(parts)), BOUNDS, Some(align_at)).await
    }

    #[tokio::test]
    async fn one_part_is_not_copied_and_many_are_aligned() {
        let text = "0123456789";
        let whole = read_parts(&[text], 0).await.expect("fits");
        assert_eq!(whole.as_ptr(), text.as_ptr());
        for align_at in [0, 3, 9] {
            let whole = read_parts(&["012", "", "3456", "789"], align_at).await.expect("fits");
            assert_eq!(whole, text);
            assert_eq!(whole.as_ptr().addr().wrapping_add(align_at) % ALIGNMENT, 0, "{align_at}");
        }
        assert!(read_parts(&[], 0).await.expect("empty").is_empty());
    }

    #[tokio::test]
    async fn a_body_past_the_bound_is_refused_whether_its_head_says_so_or_not() {
        let failure = read_parts(&["012345", "67890"], 0).await.expect_err("11 bytes");
        assert_eq!(failure.status(false).http, 413);
        assert!(failure.message().contains("10 bytes that --max-request-size allows"), "{failure:?}");
        let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, http::HeaderValue::from_static("11"))]);
        let failure = read(&headers, Body::empty(), BOUNDS, None).await.expect_err("11 bytes");
        assert_eq!(failure.status(false).http, 413);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up() {
        let stalled = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let failure = read(&HeaderMap::new(), stalled, BOUNDS, None).await.expect_err("stalled");
        assert_eq!(failure.status(false).http, 408);
    }
}

//! Bodies: a request's, gathered into one [`Bytes`] within its bounds; a response's, sent frame by frame without a copy.

use std::any::Any;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use inference::{Error, ErrorKind};

use crate::admission::{Admission, BodyShare};
use crate::compression::{Inflater, LONG_COMPRESSED};
use crate::encoding;
use crate::gathered::Gathered;
use crate::infer::off_thread;
use crate::status::{Failure, Refusal};

/// Bounds on reading a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<'a> {
    /// Bytes.
    pub(crate) size: u64,
    /// Until the next part arrives.
    pub(crate) timeout: Duration,
    /// What all bodies together may hold.
    pub(crate) admission: &'a Admission,
}

/// A body that was read, and its share of what all bodies may hold.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    pub(crate) share: BodyShare,
}

/// Reads a whole body, and decompresses it where its head says that it is compressed. One part is passed on as it is; several
/// are copied together, so that the byte at `tensors_at` (where binary tensors begin, if there are any) is aligned.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    bounds: Bounds<'_>,
    tensors_at: Option<usize>,
) -> Result<Whole, Failure> {
    let encoding = encoding::of_request(headers)?;
    let declared = declared_length(headers);
    check_size(declared.unwrap_or(0), bounds.size)?;
    match encoding {
        None => gather(&mut body, declared, bounds, tensors_at).await,
        Some(encoding) => inflate(&mut body, bounds, Inflater::new(encoding, bounds.size, tensors_at)).await,
    }
}

async fn gather(
    body: &mut Body,
    declared: Option<u64>,
    bounds: Bounds<'_>,
    tensors_at: Option<usize>,
) -> Result<Whole, Failure> {
    let mut share = bounds.admission.body();
    let Some(first) = next_part(body, bounds).await? else { return Ok(Whole { bytes: Bytes::new(), share }) };
    check_size(first.len() as u64, bounds.size)?;
    share.add(first.len())?;
    let Some(second) = next_part(body, bounds).await? else { return Ok(Whole { bytes: first, share }) };

    let mut gathered = Gathered::new(declared, first.len() + second.len(), tensors_at);
    gathered.add(&first);
    let mut part = Some(second);
    while let Some(bytes) = part {
        check_size((gathered.len() + bytes.len()) as u64, bounds.size)?;
        share.add(bytes.len())?;
        gathered.add(&bytes);
        part = next_part(body, bounds).await?;
    }
    Ok(Whole { bytes: gathered.whole("body_chunks"), share })
}

async fn inflate(body: &mut Body, bounds: Bounds<'_>, mut inflater: Inflater) -> Result<Whole, Failure> {
    let mut share = bounds.admission.body();
    while let Some(part) = next_part(body, bounds).await? {
        if part.len() <= LONG_COMPRESSED {
            inflater.add(&part, &mut share)?;
        } else {
            let job = move || inflater.add(&part, &mut share).map(|()| (inflater, share));
            (inflater, share) = off_thread(job).await?;
        }
    }
    Ok(Whole { bytes: inflater.whole()?, share })
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// # Errors
/// BodyTooLarge when `size` is over `limit`.
pub(crate) fn check_size(size: u64, limit: u64) -> Result<(), Failure> {
    if size <= limit {
        return Ok(());
    }
    let message = format!(
        "the request's body is larger than the {limit} bytes that --max-request-size allows; send a smaller batch or raise \
         it"
    );
    Err(Failure::Refused(Refusal::BodyTooLarge, message))
}

/// The next bytes of a body, never empty; `None` at its end.
///
/// # Errors
/// When they do not arrive in time, or the body breaks off.
pub(crate) async fn next_part(body: &mut Body, bounds: Bounds<'_>) -> Result<Option<Bytes>, Failure> {
    tokio::time::timeout(bounds.timeout, part(body)).await.map_err(|_| {
        let seconds = bounds.timeout.as_secs_f64();
        Failure::Refused(
            Refusal::BodyTimeout,
            format!("the next part of the request's body did not arrive within {seconds} s"),
        )
    })?
}

/// The same, however long it takes.
///
/// # Errors
/// When the body breaks off.
pub(crate) async fn part(body: &mut Body) -> Result<Option<Bytes>, Failure> {
    loop {
        match body.frame().await {
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

/// A body whose parts go to the socket as they are.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    parts: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

/// What must live until an answer has been written.
pub(crate) type Guard = Arc<dyn Any + Send + Sync>;

/// Bytes that keep a guard alive.
struct Guarded {
    bytes: Bytes,
    _guard: Guard,
}

impl AsRef<[u8]> for Guarded {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Keeps `guard` until the last of the parts was written: they are, in their order. A body is gone earlier: hyper takes all of
/// it, and then writes it.
pub(crate) fn guard_last(parts: &mut [Bytes], guard: Option<Guard>) {
    if let (Some(guard), Some(last)) = (guard, parts.last_mut()) {
        *last = Bytes::from_owner(Guarded { bytes: std::mem::take(last), _guard: guard });
    }
}

impl Frames {
    pub(crate) fn new(parts: impl IntoIterator<Item = Bytes>) -> Self {
        Frames { parts: parts.into_iter().filter(|part| !part.is_empty()).collect(), trailers: None }
    }

    /// Ends the body with trailers, as gRPC does. Its length is not announced then.
    pub(crate) fn with_trailers(self, trailers: HeaderMap) -> Self {
        Frames { trailers: Some(trailers), ..self }
    }

    /// Keeps `guard` until the last part was written, as [`guard_last`] does.
    pub(crate) fn guarded(mut self, guard: Option<Guard>) -> Self {
        guard_last(self.parts.make_contiguous(), guard);
        self
    }

    fn remaining(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.parts.pop_front().map(Frame::data);
        Poll::Ready(part.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.trailers.is_none() { SizeHint::with_exact(self.remaining()) } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::gathered::ALIGNMENT;

    fn bounds(admission: &Admission) -> Bounds<'_> {
        Bounds { size: 10, timeout: Duration::from_secs(5), admission }
    }

    fn body_of(parts: &[&'static str]) -> Body {
        let parts: Vec<_> = parts.iter().map(|part| Ok::<_, Infallible>(Bytes::from_static(part.as_bytes()))).collect();
        Body::from_stream(stream::iter(parts))
    }

    async fn read_parts(parts: &[&'static str], align_at: usize) -> Result<Bytes, Failure> {
        let admission = Admission::default();
        let whole = read(&HeaderMap::new(), body_of(parts), bounds(&admission), Some(align_at)).await?;
        Ok(whole.bytes)
    }

    #[tokio::test]
    async fn a_body_that_outgrows_its_buffer_stays_aligned_and_whole() {
        let part: Vec<u8> = (0..100).collect();
        let parts: Vec<_> = std::iter::repeat_n(Bytes::from(part.clone()), 50).map(Ok::<_, Infallible>).collect();
        let admission = Admission::default();
        let bounds = Bounds { size: 5000, ..bounds(&admission) };
        let body = Body::from_stream(stream::iter(parts));
        let whole = read(&HeaderMap::new(), body, bounds, Some(7)).await.expect("fits");
        assert_eq!(whole.bytes, part.repeat(50));
        assert_eq!(whole.bytes[7..].as_ptr().addr() % ALIGNMENT, 0);
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded() {
        let admission = Admission::new(9, 12);
        let headers = HeaderMap::new();
        let first = read(&headers, body_of(&["0123", "4567"]), bounds(&admission), None).await.expect("8 of 12");
        for parts in [&["01234"][..], &["01", "23", "4"]] {
            let failure = read(&headers, body_of(parts), bounds(&admission), None).await.expect_err("13 of 12");
            assert_eq!((failure.status(false).http, failure.status(false).label), (503, "overloaded"));
            assert!(failure.message().contains("12 bytes that --max-buffered-bytes allows"), "{failure:?}");
        }
        drop(first);
        read(&headers, body_of(&["01", "23", "4"]), bounds(&admission), None).await.expect("5 of 12");
    }

    #[tokio::test]
    async fn a_guard_lives_until_the_last_part_is_gone() {
        let guard: Guard = Arc::new(());
        let parts = ["head", "tensor", ""].map(|part| Bytes::from_static(part.as_bytes()));
        let mut frames = Frames::new(parts).guarded(Some(guard.clone()));
        assert_eq!(http_body::Body::size_hint(&frames).exact(), Some(10));
        let head = frames.frame().await.expect("a frame");
        let last = frames.frame().await.expect("a frame").expect("infallible").into_data().expect("data");
        assert_eq!(last, "tensor");
        drop((frames, head));
        assert_eq!(Arc::strong_count(&guard), 2, "handed over is not written");
        drop(last);
        assert_eq!(Arc::strong_count(&guard), 1);
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
        let admission = Admission::default();
        let failure = read(&headers, Body::empty(), bounds(&admission), None).await.expect_err("11 bytes");
        assert_eq!(failure.status(false).http, 413);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up() {
        let stalled = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let admission = Admission::default();
        let failure = read(&HeaderMap::new(), stalled, bounds(&admission), None).await.expect_err("stalled");
        assert_eq!(failure.status(false).http, 408);
    }
}

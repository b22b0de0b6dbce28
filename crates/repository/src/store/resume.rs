//! A range of an object as one stream, whatever happens on the way: read on from the byte that was reached.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use inference::{BoxFuture, Error, Result};
use tokio::time::Instant;

use super::Operation;
use super::retrier::{Failed, Retrier, Try};

/// A try that brought as many bytes led somewhere: failures are counted anew.
const PROGRESS_BYTES: u64 = 256 * 1024;

/// The bytes of one try.
pub(crate) type TryBytes = BoxStream<'static, Try<Bytes>>;

/// One version of one object, of which ranges can be read.
pub(crate) trait Ranges: Send + Sync + 'static {
    /// Asks once for the bytes of a range.
    fn open(&self, range: Range<u64>) -> BoxFuture<'_, Try<TryBytes>>;

    /// The error for a body that breaks off.
    fn broken(&self, why: &str) -> Error;
}

/// How long one try may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TryLimits {
    /// The longest wait for the next bytes.
    pub(crate) silence: Duration,
    /// The longest wait of one try for all of its bytes together; time in which nobody asks for bytes does not count.
    pub(crate) whole: Duration,
}

/// A range of an object, opened and then read.
///
/// # Errors
/// When the first bytes cannot be had, however often that is tried. What happens to the later ones comes with the stream.
pub(crate) async fn read_range(
    object: Arc<dyn Ranges>,
    range: Range<u64>,
    retrier: Arc<Retrier>,
    limits: TryLimits,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let mut reading = Reading { object, rest: range, retrier, limits, body: None, failures: 0 };
    if !reading.rest.is_empty() {
        reading.open().await?;
    }
    let chunks =
        stream::try_unfold(
            reading,
            |mut reading| async move { Ok(reading.next().await?.map(|chunk| (chunk, reading))) },
        );
    Ok(chunks.boxed())
}

struct Reading {
    object: Arc<dyn Ranges>,
    /// What has not come yet.
    rest: Range<u64>,
    retrier: Arc<Retrier>,
    limits: TryLimits,
    body: Option<Body>,
    /// In a row, without progress.
    failures: u32,
}

/// The try under way.
struct Body {
    chunks: TryBytes,
    waited: Duration,
    received: u64,
}

impl Reading {
    /// Opens what has not come yet, however many tries that takes.
    async fn open(&mut self) -> Result<&mut Body> {
        loop {
            match self.object.open(self.rest.clone()).await {
                Ok(chunks) => return Ok(self.body.insert(Body { chunks, waited: Duration::ZERO, received: 0 })),
                Err(failed) => self.pause(failed).await?,
            }
        }
    }

    async fn pause(&mut self, failed: Failed) -> Result<()> {
        self.failures += 1;
        self.retrier.pause(Operation::Get, failed, self.failures).await
    }

    /// The next bytes; `None` after the last one.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let left = self.rest.end - self.rest.start;
            let (limits, object) = (self.limits, self.object.clone());
            let body = match &mut self.body {
                Some(body) => body,
                None => self.open().await?,
            };
            match body.next(limits, &*object, left).await {
                Ok(chunk) => {
                    if body.received >= PROGRESS_BYTES {
                        self.failures = 0;
                    }
                    self.rest.start += chunk.len() as u64;
                    if self.rest.is_empty() {
                        self.retrier.succeeded();
                    }
                    return Ok(Some(chunk));
                }
                Err(failed) => {
                    self.body = None;
                    self.pause(failed).await?;
                }
            }
        }
    }
}

impl Body {
    /// At least one byte, of `left` that are missing.
    async fn next(&mut self, limits: TryLimits, object: &dyn Ranges, left: u64) -> Try<Bytes> {
        let broken = |why: String| Failed::passing(object.broken(&why));
        loop {
            let began = Instant::now();
            let wait = limits.silence.min(limits.whole.saturating_sub(self.waited));
            let chunk = tokio::time::timeout(wait, self.chunks.next()).await;
            self.waited += began.elapsed();
            let chunk = match chunk {
                Err(_) if self.waited >= limits.whole => {
                    return Err(broken(format!("{left} bytes were missing after {} s", limits.whole.as_secs_f32())));
                }
                Err(_) => return Err(broken(format!("no bytes came for {} s", limits.silence.as_secs_f32()))),
                Ok(None) => return Err(broken(format!("it ended {left} bytes early"))),
                Ok(Some(chunk)) => chunk?,
            };
            let length = chunk.len() as u64;
            if length > left {
                return Err(broken(format!("{} bytes came too many", length - left)));
            }
            self.received += length;
            if length > 0 {
                return Ok(chunk);
            }
        }
    }
}

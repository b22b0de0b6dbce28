//! Notices HTTP/2 answers that their client does not take. Flow control holds such an answer back before it reaches the
//! socket, so that a bound on the socket's writes does not see it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The parts that an answer is handed over in: each is asked for only once the client has taken enough of those before.
const PART: usize = 256 << 10;

/// The answers under way on one connection.
#[derive(Default)]
pub(crate) struct Answers {
    progress: Mutex<HashMap<u64, Progress>>,
    next: AtomicU64,
}

/// How far an answer has come.
struct Progress {
    /// When the client last took something of it, or could.
    last_taken: Instant,
    /// Parts that were handed over and are not sent yet.
    under_way: usize,
    /// The body has nothing to send for now, as between two answers on a gRPC stream.
    pausing: bool,
}

impl Progress {
    fn waits_for_client(&self) -> bool {
        self.under_way > 0 || !self.pausing
    }
}

impl Answers {
    /// Watches an answer until its last byte was sent or the stream was reset. The body's own pauses do not count.
    pub(crate) fn watch(self: &Arc<Self>, body: Body) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return body;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let progress = Progress { last_taken: Instant::now(), under_way: 0, pausing: false };
        self.progress.lock().insert(id, progress);
        Body::new(Watched { body, rest: Bytes::new(), answer: Arc::new(Answer { answers: self.clone(), id }) })
    }

    /// Resolves when nothing of some answer was taken for as long as `timeout`.
    pub(crate) async fn stalled(&self, timeout: Duration) {
        loop {
            let oldest = {
                let progress = self.progress.lock();
                progress.values().filter(|answer| answer.waits_for_client()).map(|answer| answer.last_taken).min()
            };
            let now = Instant::now();
            // An answer that begins later cannot be due before the next look.
            let left = oldest.map_or(timeout, |oldest| (oldest + timeout).saturating_duration_since(now));
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// An answer under way.
struct Answer {
    answers: Arc<Answers>,
    id: u64,
}

impl Answer {
    fn update(&self, change: impl FnOnce(&mut Progress)) {
        if let Some(progress) = self.answers.progress.lock().get_mut(&self.id) {
            change(progress);
        }
    }

    fn handed_over(&self) {
        self.update(|progress| {
            *progress = Progress { last_taken: Instant::now(), under_way: progress.under_way + 1, pausing: false };
        });
    }

    fn sent(&self) {
        self.update(|progress| {
            progress.last_taken = Instant::now();
            progress.under_way = progress.under_way.saturating_sub(1);
        });
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.answers.progress.lock().remove(&self.id);
    }
}

/// A part of an answer; it is dropped when it was sent.
struct Part {
    bytes: Bytes,
    answer: Arc<Answer>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.answer.sent();
    }
}

struct Watched {
    body: Body,
    /// What is left of the body's last frame.
    rest: Bytes,
    answer: Arc<Answer>,
}

impl Watched {
    fn part(&mut self) -> Frame<Bytes> {
        let bytes = self.rest.split_to(self.rest.len().min(PART));
        self.answer.handed_over();
        Frame::data(Bytes::from_owner(Part { bytes, answer: self.answer.clone() }))
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.part())));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            self.answer.update(|progress| progress.pausing = true);
            return Poll::Pending;
        };
        match frame {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(match frame.into_data() {
                Ok(bytes) => {
                    self.rest = bytes;
                    self.part()
                }
                Err(frame) => frame,
            }))),
            end => Poll::Ready(end),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, hint) = (self.rest.len() as u64, self.body.size_hint());
        let mut sum = SizeHint::new();
        sum.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            sum.set_upper(upper + rest);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_stalled_when_none_of_its_parts_goes_away() {
        let answers = Arc::new(Answers::default());
        let mut body = answers.watch(Body::from(vec![7; 3 * PART]));
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(3 * PART as u64));
        let began = Instant::now();
        let mut held = Vec::new();
        for _ in 0..3 {
            let part = body.frame().await.expect("a part").expect("no error").into_data().expect("data");
            assert_eq!(part.len(), PART);
            held.push(part);
            let taken = tokio::time::timeout(TIMEOUT - Duration::from_secs(1), answers.stalled(TIMEOUT)).await;
            assert!(taken.is_err(), "a part was taken a moment ago");
        }
        drop(body);
        held.truncate(1);
        answers.stalled(TIMEOUT).await;
        assert_eq!(began.elapsed().as_secs(), 3 * 59 + 60);
        held.clear();
        assert!(answers.progress.lock().is_empty(), "all was sent");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_pauses_is_not_the_clients_doing() {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let parts = futures::stream::unfold(receiver, async |mut receiver| {
            let bytes = receiver.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), receiver))
        });
        let answers = Arc::new(Answers::default());
        let mut body = answers.watch(Body::from_stream(parts));
        sender.send(Bytes::from_static(b"one")).expect("open");
        let part = body.frame().await.expect("a part").expect("no error");
        assert!(body.frame().now_or_never().is_none(), "nothing to send yet");
        answers.stalled(TIMEOUT).await;
        drop(part);
        let pausing = tokio::time::timeout(10 * TIMEOUT, answers.stalled(TIMEOUT)).await;
        assert!(pausing.is_err(), "all was taken, and there is nothing more");
        sender.send(Bytes::from_static(b"two")).expect("open");
        let _held = body.frame().await.expect("a part").expect("no error");
        answers.stalled(TIMEOUT).await;
    }
}

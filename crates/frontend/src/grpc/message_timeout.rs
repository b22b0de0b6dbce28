//! Bounds how long a message that has begun may take to go on, in the calls whose messages tonic reads. Between two messages
//! a stream may be silent for as long as it likes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use tokio::time::Sleep;
use tonic::Status;

use super::wire::{PREFIX, Prefix};

/// A call's body that fails with DeadlineExceeded when the next part of a message does not arrive within `timeout`.
pub(super) struct MessageTimeout {
    body: Body,
    timeout: Duration,
    place: Place,
    /// Runs out when the part that is waited for is late; `None` while none is.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl MessageTimeout {
    pub(super) fn new(body: Body, timeout: Duration) -> Self {
        MessageTimeout { body, timeout, place: Place::default(), waiting: None }
    }
}

impl http_body::Body for MessageTimeout {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.waiting = None;
            if let Some(Ok(frame)) = &frame {
                self.place.pass(frame.data_ref().map_or(&[], |data| &data[..]));
            }
            return Poll::Ready(frame);
        }
        if self.place.is_between() {
            return Poll::Pending;
        }
        let timeout = self.timeout;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(waiting.as_mut().poll(context));
        let seconds = timeout.as_secs_f64();
        let message = format!("the next part of the request's message did not arrive within {seconds} s");
        Poll::Ready(Some(Err(axum::Error::new(Status::deadline_exceeded(message)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Where in a sequence of messages a body has come to.
#[derive(Debug, Default)]
struct Place {
    /// What has come of a prefix.
    prefix: [u8; PREFIX],
    prefix_filled: usize,
    /// What is still to come of a message.
    left: usize,
}

impl Place {
    /// Whether no message has begun.
    fn is_between(&self) -> bool {
        self.prefix_filled == 0 && self.left == 0
    }

    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let count = self.left.min(bytes.len());
                self.left -= count;
                bytes = &bytes[count..];
                continue;
            }
            self.prefix[self.prefix_filled] = bytes[0];
            self.prefix_filled += 1;
            bytes = &bytes[1..];
            if self.prefix_filled == PREFIX {
                self.prefix_filled = 0;
                // What is no prefix is tonic's to refuse.
                self.left = Prefix::read(self.prefix).map_or(0, |prefix| prefix.length as usize);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream::{self, StreamExt};
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_place_is_known_however_messages_are_cut(
            lengths in proptest::collection::vec(0usize..20, 0..6),
            piece in 1usize..30,
        ) {
            let framed = |length: usize| [vec![0, 0, 0, 0, length as u8], vec![7; length]].concat();
            let bytes: Vec<u8> = lengths.iter().copied().flat_map(framed).collect();
            let mut ends = vec![0];
            lengths.iter().for_each(|length| ends.push(ends[ends.len() - 1] + PREFIX + length));
            let (mut place, mut passed) = (Place::default(), 0);
            for part in bytes.chunks(piece) {
                place.pass(part);
                passed += part.len();
                prop_assert_eq!(place.is_between(), ends.contains(&passed), "{} of {:?}", passed, &ends);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_between_messages_is_no_fault_and_within_one_is() {
        let timeout = Duration::from_secs(30);
        let parts = [(1000, "\0\0\0\0\u{2}a"), (29, "b"), (1000, "\0\0\0\0\u{2}"), (31, "ab")];
        let parts = stream::iter(parts).then(async |(wait, part)| {
            tokio::time::sleep(Duration::from_secs(wait)).await;
            Ok::<_, Infallible>(Bytes::from_static(part.as_bytes()))
        });
        let mut body = MessageTimeout::new(Body::from_stream(parts), timeout);
        for _ in 0..3 {
            body.frame().await.expect("a part").expect("in time");
        }
        let error = body.frame().await.expect("an end").expect_err("late");
        let status = Status::from_error(Box::new(error));
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(status.message().contains("did not arrive within 30 s"), "{status}");
    }
}

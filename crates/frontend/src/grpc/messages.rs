//! Reads the messages of a call's body, with the bounds that HTTP's bodies have. A message that arrives in one part is
//! passed on as it lies; several are gathered in one buffer, with the first tensor aligned.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use inference::{Error, ErrorKind};

use super::wire::{self, PREFIX, Prefix};
use crate::admission::BodyShare;
use crate::body::{self, Bounds, Whole};
use crate::compression::{self, Encoding};
use crate::gathered::Gathered;
use crate::status::Failure;

/// Why a message was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is refused; the next one can be read.
    Message(Failure),
    /// What comes next in the call cannot be told.
    Call(Failure),
}

impl Unread {
    fn into_failure(self) -> Failure {
        match self {
            Unread::Message(failure) | Unread::Call(failure) => failure,
        }
    }
}

/// What is left of a call's body.
pub(super) struct Messages {
    body: Body,
    /// What has arrived and belongs to the next message.
    rest: Bytes,
    /// Bytes still to come of the message that was last begun.
    left: usize,
    /// What messages are compressed with, where they are.
    encoding: Option<Encoding>,
}

impl Messages {
    pub(super) fn new(body: Body, encoding: Option<Encoding>) -> Self {
        Messages { body, rest: Bytes::new(), left: 0, encoding }
    }

    /// The one message of a call that has one.
    ///
    /// # Errors
    /// When there is none or another one; when it is over a bound, late, broken off, or not what its head says.
    pub(super) async fn only(mut self, bounds: Bounds<'_>) -> Result<Whole, Failure> {
        let first = self.part(bounds).await?;
        let message = match first {
            Some(part) => self.message(part, bounds).await.map_err(Unread::into_failure)?,
            None => return Err(Error::invalid_argument("the call has no request message").into()),
        };
        if self.rest.is_empty() && self.part(bounds).await?.is_none() {
            return Ok(message);
        }
        Err(Error::invalid_argument("the call has more than the one request message that it may have").into())
    }

    /// The next message of a call that has any number; `None` when there are no more. Between two of them a client may be
    /// silent for as long as it likes, or go away.
    ///
    /// # Errors
    /// When it is over a bound, late, broken off, or not what its head says.
    pub(super) async fn next(&mut self, bounds: Bounds<'_>) -> Result<Option<Whole>, Unread> {
        while self.left > 0 {
            self.piece(bounds).await.map_err(Unread::Call)?;
        }
        let mut start = std::mem::take(&mut self.rest);
        if start.is_empty() {
            match body::part(&mut self.body).await {
                Ok(Some(part)) => start = part,
                Ok(None) | Err(_) => return Ok(None),
            }
        }
        self.message(start, bounds).await.map(Some)
    }

    /// The next bytes; `None` at the end.
    async fn part(&mut self, bounds: Bounds<'_>) -> Result<Option<Bytes>, Failure> {
        if http_body::Body::is_end_stream(&self.body) {
            return Ok(None);
        }
        body::next_part(&mut self.body, bounds).await
    }

    /// The next bytes of a message that has begun.
    async fn more(&mut self, bounds: Bounds<'_>) -> Result<Bytes, Failure> {
        let part = self.part(bounds).await?;
        part.ok_or_else(|| Error::new(ErrorKind::Cancelled, "the request's message broke off").into())
    }

    /// The next of the bytes that are left of a message.
    async fn piece(&mut self, bounds: Bounds<'_>) -> Result<Bytes, Failure> {
        let mut part = self.more(bounds).await?;
        self.rest = part.split_off(part.len().min(self.left));
        self.left -= part.len();
        Ok(part)
    }

    /// The message that begins with `start`.
    async fn message(&mut self, start: Bytes, bounds: Bounds<'_>) -> Result<Whole, Unread> {
        let (prefix, start) = self.prefix(start, bounds).await.map_err(Unread::Call)?;
        let mut share = bounds.admission.body();
        let bytes = self.payload(prefix, start, bounds, &mut share).await?;
        if !prefix.compressed {
            return Ok(Whole { bytes, share });
        }
        let Some(encoding) = self.encoding else {
            let error = Error::invalid_argument("the request message is compressed, but no grpc-encoding says how");
            return Err(Unread::Message(error.into()));
        };
        compression::unpack(encoding, bytes, bounds.size, share).await.map_err(Unread::Message)
    }

    /// A message's head, and the bytes behind it that have come.
    async fn prefix(&mut self, mut start: Bytes, bounds: Bounds<'_>) -> Result<(Prefix, Bytes), Failure> {
        while start.len() < PREFIX {
            let mut joined = BytesMut::from(start);
            joined.extend_from_slice(&self.more(bounds).await?);
            start = joined.freeze();
        }
        let prefix = Prefix::read(start.split_to(PREFIX).as_ref().try_into().expect("invariant: as long as a prefix"))?;
        body::check_size(u64::from(prefix.length), bounds.size)?;
        Ok((prefix, start))
    }

    /// A message's bytes, which begin with `start`.
    async fn payload(
        &mut self,
        prefix: Prefix,
        mut start: Bytes,
        bounds: Bounds<'_>,
        share: &mut BodyShare,
    ) -> Result<Bytes, Unread> {
        let refused = |error: Error| Unread::Message(error.into());
        self.left = prefix.length as usize;
        if start.is_empty() && self.left > 0 {
            start = self.more(bounds).await.map_err(Unread::Call)?;
        }
        self.rest = start.split_off(start.len().min(self.left));
        self.left -= start.len();
        share.add(start.len()).map_err(refused)?;
        if self.left == 0 {
            return Ok(start);
        }
        let tensors_at = if prefix.compressed { None } else { wire::tensors_at(&start) };
        let mut gathered = Gathered::new(Some(u64::from(prefix.length)), start.len(), tensors_at);
        gathered.add(&start);
        while self.left > 0 {
            let part = self.piece(bounds).await.map_err(Unread::Call)?;
            share.add(part.len()).map_err(refused)?;
            gathered.add(&part);
        }
        Ok(gathered.whole("body_chunks"))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures::stream;
    use prost::Message;
    use protocol::grpc_service::ModelInferRequest;

    use super::*;
    use crate::admission::Admission;

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    async fn read_parts(parts: Vec<Bytes>, encoding: Option<Encoding>) -> Result<Bytes, Failure> {
        let admission = Admission::default();
        let bounds = Bounds { size: 2000, timeout: Duration::from_secs(5), admission: &admission };
        let body = Body::from_stream(stream::iter(parts.into_iter().map(Ok::<_, Infallible>)));
        Messages::new(body, encoding).only(bounds).await.map(|whole| whole.bytes)
    }

    async fn refused(parts: Vec<Bytes>) -> String {
        read_parts(parts, None).await.expect_err("it is wrong").message().to_owned()
    }

    #[tokio::test]
    async fn one_part_is_not_copied_and_any_pieces_are_put_together_with_tensors_aligned() {
        let tensor = Bytes::from(vec![9; 1000]);
        let message = ModelInferRequest { model_name: "m".to_owned(), ..ModelInferRequest::default() };
        let message = ModelInferRequest { raw_input_contents: vec![tensor.clone()], ..message }.encode_to_vec();
        let body = Bytes::from(framed(0, &message));
        let whole = read_parts(vec![body.clone()], None).await.expect("a message");
        assert_eq!(whole.as_ptr(), body[PREFIX..].as_ptr());
        for size in [1, 2, 5, 7, 100, 1004] {
            let parts = body.chunks(size).map(Bytes::copy_from_slice).collect();
            let whole = read_parts(parts, None).await.expect("a message");
            assert_eq!(whole, message, "{size}");
            if size >= 100 {
                let at = whole.len() - tensor.len();
                assert_eq!(whole[at..].as_ptr().addr() % 64, 0, "{size}");
            }
        }
        assert!(read_parts(vec![Bytes::from_static(&[0; PREFIX])], None).await.expect("empty").is_empty());
    }

    #[tokio::test]
    async fn packed_messages_are_unpacked() {
        let parts = [Bytes::from(vec![1; 1500])];
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let packed = compression::compress(encoding, 6, &parts);
            let body: Bytes = framed(1, &packed).into();
            assert_eq!(read_parts(vec![body.clone()], Some(encoding)).await.expect("unpacked"), parts[0]);
            assert!(refused(vec![body]).await.contains("no grpc-encoding says how"));
        }
        let plain = Bytes::from(framed(0, b"abc"));
        assert_eq!(read_parts(vec![plain], Some(Encoding::Gzip)).await.expect("a flag decides"), "abc");
    }

    #[tokio::test]
    async fn what_is_not_one_message_is_refused() {
        let message = Bytes::from(framed(0, b"abc"));
        assert!(refused(vec![]).await.contains("no request message"));
        assert!(refused(vec![message.slice(..3)]).await.contains("broke off"));
        assert!(refused(vec![message.slice(..7)]).await.contains("broke off"));
        assert!(refused(vec![message.clone(), message.slice(..1)]).await.contains("more than the one"));
        assert!(refused(vec![[&message[..], &[0]].concat().into()]).await.contains("more than the one"));
        assert!(refused(vec![framed(2, b"").into()]).await.contains("compression flag is 2"));
        // Refused before it has come.
        assert!(refused(vec![vec![0, 0, 0, 7, 209].into()]).await.contains("2000 bytes that --max-request-size"));
    }
}

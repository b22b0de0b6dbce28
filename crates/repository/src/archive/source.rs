//! The archive's bytes as they arrive from the store, for a blocking reader; length and checksum are verified on the way.

use std::io::{self, BufRead, Read};

use bytes::{Bytes, BytesMut};
use inference::{Error, Result};
use tokio::sync::mpsc::Receiver;

use crate::failure::{Failure, Outcome, Reason};
use crate::store::{Checksum, ChecksumHasher};

/// Reads chunks from a channel. The end is reported only after as many bytes came as were promised, with the promised
/// checksum; anything else is a [`Failure`] carried by the I/O error. Blocks, so it belongs on a blocking thread.
pub(crate) struct Source {
    chunks: Receiver<Result<Bytes>>,
    current: Bytes,
    received: u64,
    size: u64,
    checksum: Option<Checksum>,
    hasher: Option<ChecksumHasher>,
    ended: bool,
}

impl Source {
    pub(crate) fn new(chunks: Receiver<Result<Bytes>>, size: u64, checksum: Option<Checksum>) -> Self {
        let hasher = checksum.as_ref().map(Checksum::hasher);
        Source { chunks, current: Bytes::new(), received: 0, size, checksum, hasher, ended: false }
    }

    /// How many bytes of the archive have been read.
    pub(super) fn consumed(&self) -> u64 {
        self.received - self.current.len() as u64
    }

    /// The next `count` bytes, or as many as there are, without consuming them.
    pub(super) fn peek(&mut self, count: usize) -> Outcome<&[u8]> {
        while self.current.len() < count {
            let Some(more) = self.receive()? else { break };
            let mut joined = BytesMut::from(&self.current[..]);
            joined.extend_from_slice(&more);
            self.current = joined.freeze();
        }
        Ok(&self.current[..count.min(self.current.len())])
    }

    fn receive(&mut self) -> Outcome<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        let Some(chunk) = self.chunks.blocking_recv() else {
            self.ended = true;
            return self.verify().map(|()| None);
        };
        let chunk = chunk.map_err(|error| Failure::new(Reason::Store, error))?;
        self.received += chunk.len() as u64;
        if self.received > self.size {
            let message = format!("more bytes arrived than the {} that the store promised", self.size);
            return Err(Failure::new(Reason::Corrupt, Error::unavailable(message)));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        Ok(Some(chunk))
    }

    fn verify(&mut self) -> Outcome<()> {
        if self.received < self.size {
            let message = format!("the download ended after {} of {} bytes; try again", self.received, self.size);
            return Err(Failure::new(Reason::Store, Error::unavailable(message)));
        }
        let found = self.hasher.take().map(ChecksumHasher::finish);
        match (&self.checksum, found) {
            (Some(expected), Some(found)) if *expected != found => {
                let message = format!(
                    "the archive's checksum is {found}, the store says {expected}: it was damaged on its way or in the \
                     store; upload it again"
                );
                Err(Failure::new(Reason::Corrupt, Error::unavailable(message)))
            }
            _ => Ok(()),
        }
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.receive()? {
                Some(chunk) => self.current = chunk,
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        bytes::Buf::advance(&mut self.current, count);
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

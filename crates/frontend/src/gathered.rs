//! A body's parts copied together in one buffer, in which the tensors are aligned.

use bytes::{BufMut, Bytes, BytesMut};

use crate::telemetry::count_copy;

/// What is reserved at once for a body of many parts, however much its head promises.
const MAX_RESERVE: u64 = 64 << 20;
/// The alignment that runtimes like best for tensors.
pub(crate) const ALIGNMENT: usize = 64;

/// Parts copied together behind some padding, which aligns the byte at `tensors_at`.
pub(crate) struct Gathered {
    buffer: BytesMut,
    padding: usize,
    declared: usize,
    tensors_at: Option<usize>,
}

impl Gathered {
    /// Nothing yet, of `declared` bytes if the client is to be believed, and `least` that are there already.
    pub(crate) fn new(declared: Option<u64>, least: usize, tensors_at: Option<usize>) -> Self {
        let reserved = declared.unwrap_or(0).min(MAX_RESERVE) as usize;
        let declared = declared.and_then(|declared| usize::try_from(declared).ok()).unwrap_or(0);
        let (buffer, padding) = Self::aligned(reserved.max(least), tensors_at);
        Gathered { buffer, padding, declared, tensors_at }
    }

    fn aligned(capacity: usize, tensors_at: Option<usize>) -> (BytesMut, usize) {
        let mut buffer = BytesMut::with_capacity(capacity + ALIGNMENT);
        let padding = buffer.as_ptr().addr().wrapping_add(tensors_at.unwrap_or(0)).wrapping_neg() % ALIGNMENT;
        buffer.put_bytes(0, padding);
        (buffer, padding)
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.padding
    }

    pub(crate) fn add(&mut self, part: &[u8]) {
        if self.buffer.capacity() - self.buffer.len() < part.len() {
            self.grow(self.len() + part.len());
        }
        self.buffer.put_slice(part);
    }

    /// Moves to a larger buffer: what the head promised, now that much of it has come; without a promise twice as large.
    fn grow(&mut self, needed: usize) {
        self.count_copy("body_growth");
        let (mut buffer, padding) = Self::aligned(needed.max(self.declared).max(2 * self.len()), self.tensors_at);
        buffer.put_slice(&self.buffer[self.padding..]);
        (self.buffer, self.padding) = (buffer, padding);
    }

    /// All of it; `reason` says in a metric why its tensors were copied.
    pub(crate) fn whole(self, reason: &'static str) -> Bytes {
        self.count_copy(reason);
        self.buffer.freeze().slice(self.padding..)
    }

    /// Counts a copy of the bytes so far, as far as they are tensors'.
    fn count_copy(&self, reason: &'static str) {
        let tensors = self.tensors_at.map_or(0, |tensors_at| self.len().saturating_sub(tensors_at));
        if tensors > 0 {
            count_copy(reason, tensors);
        }
    }
}

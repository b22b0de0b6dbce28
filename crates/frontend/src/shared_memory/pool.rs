//! Buffers that inputs are copied into, kept for the next request. The kernel hands out fresh memory of some hundred
//! kilobytes page by page, which takes several times as long as the copy itself.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::gathered::ALIGNMENT;

/// Bytes that are kept at most, in all buffers.
const MAX_KEPT: usize = 16 << 20;
/// Smaller buffers come from memory that the allocator keeps anyway.
const LEAST: usize = 128 << 10;

/// Buffers that nobody uses.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    /// A buffer for `length` bytes, of unknown content.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> Buffer {
        let needed = length + ALIGNMENT;
        let memory = self.kept(needed).unwrap_or_else(|| vec![0; needed]);
        let start = memory.as_ptr().addr().wrapping_neg() % ALIGNMENT;
        Buffer { memory, start, length, pool: self.clone() }
    }

    /// The smallest that fits, and is not much too large.
    fn kept(&self, needed: usize) -> Option<Vec<u8>> {
        let mut free = self.free.lock();
        let fits = |buffer: &Vec<u8>| (needed..=needed.saturating_mul(4)).contains(&buffer.len());
        let fitting = free.iter().enumerate().filter(|(_, buffer)| fits(buffer));
        let (position, _) = fitting.min_by_key(|(_, buffer)| buffer.len())?;
        Some(free.swap_remove(position))
    }

    fn give(&self, memory: Vec<u8>) {
        if memory.len() < LEAST {
            return;
        }
        let mut free = self.free.lock();
        let kept: usize = free.iter().map(Vec::len).sum();
        if kept + memory.len() <= MAX_KEPT {
            free.push(memory);
        }
    }
}

/// A buffer in use; it goes back to the pool with the last reference to its bytes.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
    pool: Arc<Pool>,
}

impl Buffer {
    /// What is to be filled; it begins at an aligned address.
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.length]
    }

    /// The bytes, once they are filled.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..][..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_within_the_bound() {
        let pool = Arc::new(Pool::default());
        let mut buffer = pool.take(600_000);
        assert_eq!((buffer.as_mut().as_ptr().addr() % ALIGNMENT, buffer.as_mut().len()), (0, 600_000));
        buffer.as_mut().fill(1);
        let bytes = buffer.into_bytes();
        let (address, other) = (bytes.as_ptr(), pool.take(600_000));
        drop(bytes.clone());
        assert_ne!(other.as_ref().as_ptr(), address, "the first is still in use");
        drop(bytes);
        assert_eq!(pool.take(500_000).as_ref().as_ptr(), address);
        assert_ne!(pool.take(50_000).as_ref().as_ptr(), address, "much too large for this");
        drop(other);
        drop((0..40).map(|_| pool.take(1 << 20)).collect::<Vec<_>>());
        drop(pool.take(100));
        let free = pool.free.lock();
        assert!(
            free.iter().map(Vec::len).sum::<usize>() <= MAX_KEPT && free.iter().all(|buffer| buffer.len() >= LEAST)
        );
    }
}

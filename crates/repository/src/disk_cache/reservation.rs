//! Room that an archive being unpacked has been promised: taken in steps, evicting as needed, given back when dropped.

use std::path::Path;
use std::sync::Arc;

use inference::Error;

use super::policy::{Ledger, Shortage};
use super::{DiskCache, EvictionReason};
use crate::archive::Room;
use crate::failure::{Failure, Outcome, Reason};

/// Room is asked for in steps of this many bytes, so that a small archive evicts little and a large one asks rarely.
const STEP_BYTES: u64 = 8 << 20;

/// Bytes reserved in a cache's books.
pub(super) struct Reservation {
    cache: Arc<DiskCache>,
    reserved: u64,
    used: u64,
}

impl Reservation {
    /// Nothing yet.
    pub(super) fn new(cache: &Arc<DiskCache>) -> Self {
        Reservation { cache: Arc::clone(cache), reserved: 0, used: 0 }
    }

    /// Gives everything back to the books, which the caller is about to enter it into as a complete archive.
    pub(super) fn hand_over(&mut self, ledger: &mut Ledger) {
        ledger.release(std::mem::take(&mut self.reserved));
    }

    fn grow(&mut self, bytes: u64) -> Result<(), Shortage> {
        let departures = self.cache.state.lock().ledger.reserve(bytes)?;
        self.reserved += bytes;
        self.cache.delete(&departures, EvictionReason::Capacity);
        Ok(())
    }
}

impl Room for Reservation {
    fn take(&mut self, bytes: u64) -> Outcome<()> {
        self.used += bytes;
        let missing = self.used.saturating_sub(self.reserved);
        if missing == 0 {
            return Ok(());
        }
        // A whole step may be too much where the rest just fits.
        if missing < STEP_BYTES && self.grow(STEP_BYTES).is_ok() {
            return Ok(());
        }
        while let Err(shortage) = self.grow(missing) {
            let could_fit = self.used <= shortage.capacity;
            if !could_fit || !self.cache.release_a_pin() {
                return Err(no_room(self.used, shortage));
            }
        }
        Ok(())
    }

    fn disk_is_full(&mut self) -> Outcome<()> {
        loop {
            // The guard must be gone by the time that pins are given up, which takes the same lock.
            let departure = self.cache.state.lock().ledger.evict_one();
            if let Some(departure) = departure {
                self.cache.delete(&[departure], EvictionReason::DiskFull);
                return Ok(());
            }
            if !self.cache.release_a_pin() {
                return Err(disk_full(&self.cache.config.directory));
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.cache.state.lock().ledger.release(self.reserved);
    }
}

fn disk_full(directory: &Path) -> Failure {
    let message = format!(
        "the disk below '{}' is full and nothing in the disk cache can be evicted; free some space, or set --disk-cache-size \
         below what the disk has",
        directory.display()
    );
    Failure::new(Reason::NoRoom, Error::no_room(message))
}

fn no_room(needed: u64, shortage: Shortage) -> Failure {
    let Shortage { capacity, pinned, reserved } = shortage;
    let message = format!(
        "no room in the disk cache: {needed} or more bytes are needed, its size is {capacity}, of which {pinned} are in use \
         by loaded models and {reserved} by archives being unpacked; raise --disk-cache-size"
    );
    Failure::new(Reason::NoRoom, Error::no_room(message))
}

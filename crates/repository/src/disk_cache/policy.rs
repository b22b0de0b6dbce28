//! Decides what is on disk and what must go. Pure: it keeps the books and returns what to delete; others delete.

use std::collections::HashMap;
use std::sync::Arc;

use inference::TargetModel;
use lru::LruCache;

/// One version of one archive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ArchiveKey {
    pub(crate) target: TargetModel,
    pub(crate) etag: Arc<str>,
}

/// What the books say about one archive.
struct Record {
    bytes: u64,
    pins: usize,
    /// Replaced or removed: it goes with its last pin.
    leaving: bool,
    directory: Arc<str>,
}

/// A directory that has left the books and is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    pub(crate) key: ArchiveKey,
    pub(crate) bytes: u64,
    pub(crate) directory: Arc<str>,
}

/// Bytes that cannot be had because everything else is pinned or being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) capacity: u64,
    pub(crate) pinned: u64,
    pub(crate) reserved: u64,
}

/// The disk cache's books, in bytes.
///
/// Each archive version is recorded at most once. `used` is the sum of the records, `reserved` what unpacking has been
/// promised and what is being deleted. After a successful [`Ledger::reserve`], `used + reserved <= capacity`. Of a
/// target's records at most one (`newest`) is not `leaving`.
pub(crate) struct Ledger {
    capacity: u64,
    used: u64,
    reserved: u64,
    records: LruCache<ArchiveKey, Record>,
    newest: HashMap<TargetModel, Arc<str>>,
}

impl Ledger {
    pub(crate) fn new(capacity: u64) -> Self {
        Ledger { capacity, used: 0, reserved: 0, records: LruCache::unbounded(), newest: HashMap::new() }
    }

    /// Bytes of complete archives.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// How many archives there are.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Every archive, most recently used first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ArchiveKey, u64)> {
        self.records.iter().map(|(key, record)| (key, record.bytes))
    }

    /// The version of a target that requests should get.
    pub(crate) fn newest(&self, target: &TargetModel) -> Option<ArchiveKey> {
        let etag = Arc::clone(self.newest.get(target)?);
        Some(ArchiveKey { target: target.clone(), etag })
    }

    /// Pins an archive and makes it the most recently used; its size and directory, or `None` where there is no such
    /// archive.
    pub(crate) fn pin(&mut self, key: &ArchiveKey) -> Option<(u64, Arc<str>)> {
        let record = self.records.get_mut(key)?;
        record.pins += 1;
        Some((record.bytes, Arc::clone(&record.directory)))
    }

    /// Undoes one [`Ledger::pin`]. An archive that was leaving goes with its last pin; its bytes stay reserved until
    /// [`Ledger::release`].
    pub(crate) fn unpin(&mut self, key: &ArchiveKey) -> Option<Departure> {
        let record = self.records.peek_mut(key)?;
        record.pins -= 1;
        (record.pins == 0 && record.leaving).then(|| self.depart(key, true))?
    }

    /// Promises `bytes` more; returns what must be deleted before they are written: the least recently used archives
    /// that nobody pins, no more than needed. On a shortage nothing changes.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<Vec<Departure>, Shortage> {
        let wanted = self.used.saturating_add(self.reserved).saturating_add(bytes);
        let mut excess = wanted.saturating_sub(self.capacity);
        let mut victims = Vec::new();
        for (key, record) in self.records.iter().rev() {
            if excess == 0 {
                break;
            }
            if record.pins == 0 {
                excess = excess.saturating_sub(record.bytes);
                victims.push(key.clone());
            }
        }
        if excess > 0 {
            return Err(self.shortage());
        }
        self.reserved += bytes;
        Ok(victims.iter().filter_map(|key| self.depart(key, false)).collect())
    }

    /// Gives back reserved bytes.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// The least recently used archive that nobody pins, to be deleted because the disk itself is full.
    pub(crate) fn evict_one(&mut self) -> Option<Departure> {
        let key = self.records.iter().rev().find(|(_, record)| record.pins == 0).map(|(key, _)| key.clone())?;
        self.depart(&key, false)
    }

    /// Records a complete archive as the newest version of its target and the most recently used; returns the versions
    /// that it replaces and that nobody pins. `false` when this version was recorded already: the new directory is not
    /// needed then.
    pub(crate) fn insert(&mut self, key: ArchiveKey, bytes: u64, directory: Arc<str>) -> (bool, Vec<Departure>) {
        if let Some(replaced) = self.confirm(&key) {
            return (false, replaced);
        }
        let replaced = self.dismiss(&key.target);
        self.used += bytes;
        self.newest.insert(key.target.clone(), Arc::clone(&key.etag));
        self.records.put(key, Record { bytes, pins: 0, leaving: false, directory });
        (true, replaced)
    }

    /// Notes that a version is the store's current one, which it may be once more after it was replaced. Returns the
    /// versions that it replaces and that nobody pins, or `None` where this version is not recorded.
    pub(crate) fn confirm(&mut self, key: &ArchiveKey) -> Option<Vec<Departure>> {
        if !self.records.contains(key) {
            return None;
        }
        if self.newest.get(&key.target) == Some(&key.etag) {
            return Some(Vec::new());
        }
        let replaced = self.dismiss(&key.target);
        self.records.peek_mut(key)?.leaving = false;
        self.newest.insert(key.target.clone(), Arc::clone(&key.etag));
        Some(replaced)
    }

    /// Takes a target out of service: what is pinned goes with its last pin, the rest is returned; their bytes stay
    /// reserved until [`Ledger::release`].
    pub(crate) fn dismiss(&mut self, target: &TargetModel) -> Vec<Departure> {
        let Some(etag) = self.newest.remove(target) else { return Vec::new() };
        let key = ArchiveKey { target: target.clone(), etag };
        let Some(record) = self.records.peek_mut(&key) else { return Vec::new() };
        record.leaving = true;
        if record.pins > 0 {
            return Vec::new();
        }
        self.depart(&key, true).into_iter().collect()
    }

    fn depart(&mut self, key: &ArchiveKey, keep_reserved: bool) -> Option<Departure> {
        let record = self.records.pop(key)?;
        if self.newest.get(&key.target) == Some(&key.etag) {
            self.newest.remove(&key.target);
        }
        self.used -= record.bytes;
        if keep_reserved {
            self.reserved += record.bytes;
        }
        Some(Departure { key: key.clone(), bytes: record.bytes, directory: record.directory })
    }

    fn shortage(&self) -> Shortage {
        let pinned = self.records.iter().filter(|(_, record)| record.pins > 0).map(|(_, record)| record.bytes).sum();
        Shortage { capacity: self.capacity, pinned, reserved: self.reserved }
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;

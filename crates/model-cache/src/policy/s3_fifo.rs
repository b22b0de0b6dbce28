//! S3-FIFO: a small queue on trial, a main queue, and a memory of what the trial turned away.
//!
//! What is new enters the small queue, which keeps a tenth of the bytes. At its end, what was used at least twice meanwhile
//! moves on to the main queue; the rest leaves, and is remembered: if it comes back soon, it enters the main queue at once. The
//! main queue gives what was used since its last turn another one. A use only counts up to three, so it takes no reordering.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use ::lru::LruCache;

use super::Departure;

/// Uses beyond this are not counted.
const MAX_USES: u8 = 3;
/// More uses than this on trial, and an archive moves to the main queue.
const TRIAL_USES: u8 = 1;
/// The small queue's share of all bytes is one in so many.
const SMALL_SHARE: u64 = 10;

/// Keys in two queues.
///
/// Invariant: each entry is in exactly the queue that it names, under its ticket; `small_bytes` and `bytes` are sums over
/// the small queue's and over all entries.
pub(super) struct S3Fifo<K> {
    entries: HashMap<K, Entry>,
    small: BTreeMap<i64, K>,
    main: BTreeMap<i64, K>,
    small_bytes: u64,
    bytes: u64,
    next_ticket: i64,
    /// For what goes to its queue's head.
    first_ticket: i64,
    /// Evicted from the small queue, at most as many as there are entries.
    turned_away: LruCache<K, ()>,
}

#[derive(Clone, Copy)]
struct Entry {
    is_small: bool,
    ticket: i64,
    bytes: u64,
    uses: u8,
}

impl<K: Clone + Eq + Hash> S3Fifo<K> {
    pub(super) fn new() -> Self {
        S3Fifo {
            entries: HashMap::new(),
            small: BTreeMap::new(),
            main: BTreeMap::new(),
            small_bytes: 0,
            bytes: 0,
            next_ticket: 0,
            first_ticket: 0,
            turned_away: LruCache::unbounded(),
        }
    }

    pub(super) fn loaded(&mut self, key: K, bytes: u64) {
        let known = self.take(&key);
        let came_back = self.turned_away.pop(&key).is_some();
        let is_small = known.map_or(!came_back, |entry| entry.is_small);
        let uses = known.map_or(0, |entry| entry.uses);
        self.put(key, Entry { is_small, ticket: 0, bytes, uses });
    }

    /// As [`S3Fifo::loaded`], but to the head of the small queue.
    pub(super) fn loaded_last(&mut self, key: K, bytes: u64) {
        self.take(&key);
        self.first_ticket -= 1;
        self.insert(key, Entry { is_small: true, ticket: self.first_ticket, bytes, uses: 0 });
    }

    /// It has another size, and keeps its place.
    pub(super) fn renewed(&mut self, key: &K, bytes: u64) {
        if let Some(entry) = self.take(key) {
            self.insert(key.clone(), Entry { bytes, ..entry });
        }
    }

    pub(super) fn used(&mut self, key: &K) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.uses = MAX_USES.min(entry.uses + 1);
        }
    }

    pub(super) fn left(&mut self, key: &K, why: Departure) {
        let Some(entry) = self.take(key) else { return };
        if why == Departure::Removed {
            return;
        }
        self.pass_those_before(entry);
        if entry.is_small {
            self.turned_away.put(key.clone(), ());
        }
        while self.turned_away.len() > self.entries.len().max(1) {
            self.turned_away.pop_lru();
        }
    }

    pub(super) fn in_order(&self) -> impl Iterator<Item = K> {
        // Nothing is lined up for somebody who takes none.
        std::iter::once_with(|| self.walk()).flatten()
    }

    fn walk(&self) -> Walk<K> {
        let line_up = |queue: &BTreeMap<i64, K>| queue.values().map(|key| (key.clone(), self.entries[key])).collect();
        Walk {
            small: line_up(&self.small),
            main: line_up(&self.main),
            small_bytes: self.small_bytes,
            bytes: self.bytes,
        }
    }

    /// Puts an entry at its queue's end.
    fn put(&mut self, key: K, entry: Entry) {
        self.next_ticket += 1;
        self.insert(key, Entry { ticket: self.next_ticket, ..entry });
    }

    fn insert(&mut self, key: K, entry: Entry) {
        self.bytes = self.bytes.saturating_add(entry.bytes);
        if entry.is_small {
            self.small_bytes = self.small_bytes.saturating_add(entry.bytes);
            self.small.insert(entry.ticket, key.clone());
        } else {
            self.main.insert(entry.ticket, key.clone());
        }
        self.entries.insert(key, entry);
    }

    fn take(&mut self, key: &K) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        if entry.is_small {
            self.small_bytes = self.small_bytes.saturating_sub(entry.bytes);
            self.small.remove(&entry.ticket);
        } else {
            self.main.remove(&entry.ticket);
        }
        Some(entry)
    }

    /// What stood before an entry that leaves, and was used, has had its turn: it moves to the main queue's end. What was
    /// not used stood before it because it is pinned, and stays where it is.
    fn pass_those_before(&mut self, left: Entry) {
        let (queue, enough) = if left.is_small { (&self.small, TRIAL_USES + 1) } else { (&self.main, 1) };
        let before: Vec<K> = queue.range(..left.ticket).map(|(_, key)| key.clone()).collect();
        for key in before {
            if self.entries[&key].uses >= enough
                && let Some(entry) = self.take(&key)
            {
                self.put(key, passed(entry));
            }
        }
    }
}

/// An entry after its turn.
fn passed(entry: Entry) -> Entry {
    let uses = if entry.is_small { 0 } else { entry.uses - 1 };
    Entry { is_small: false, uses, ..entry }
}

/// What would leave next, and next, if nothing else happened.
struct Walk<K> {
    small: VecDeque<(K, Entry)>,
    main: VecDeque<(K, Entry)>,
    small_bytes: u64,
    bytes: u64,
}

impl<K> Iterator for Walk<K> {
    type Item = K;

    fn next(&mut self) -> Option<K> {
        loop {
            let is_small_full = self.small_bytes > self.bytes / SMALL_SHARE || self.main.is_empty();
            let from_small = if is_small_full { self.small.pop_front() } else { None };
            let (key, entry) = from_small.or_else(|| self.main.pop_front()).or_else(|| self.small.pop_front())?;
            if entry.is_small {
                self.small_bytes = self.small_bytes.saturating_sub(entry.bytes);
            }
            if entry.uses > if entry.is_small { TRIAL_USES } else { 0 } {
                self.main.push_back((key, passed(entry)));
            } else {
                self.bytes = self.bytes.saturating_sub(entry.bytes);
                return Some(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evict(cache: &mut S3Fifo<char>) -> char {
        let victim = cache.in_order().next().expect("not empty");
        cache.left(&victim, Departure::Evicted);
        victim
    }

    #[test]
    fn what_proved_itself_outlives_a_scan() {
        let mut cache = S3Fifo::new();
        for key in ['a', 'b'] {
            cache.loaded(key, 10);
            cache.used(&key);
            cache.used(&key);
        }
        for scanned in '0'..='9' {
            cache.loaded(scanned, 10);
            assert_eq!(evict(&mut cache), scanned, "used once only");
        }
        assert!(cache.entries.contains_key(&'a') && cache.entries.contains_key(&'b'));
    }

    #[test]
    fn what_comes_back_soon_needs_no_second_trial() {
        let mut cache = S3Fifo::new();
        ['a', 'b', 'c'].into_iter().for_each(|key| cache.loaded(key, 10));
        assert_eq!(evict(&mut cache), 'a');
        cache.loaded('a', 10);
        assert!(!cache.entries[&'a'].is_small);
        assert_eq!(evict(&mut cache), 'b');
    }
}

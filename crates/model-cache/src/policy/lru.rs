//! Least recently used first.

use std::hash::Hash;

use ::lru::LruCache;

/// Keys in order of use.
pub(super) struct Lru<K>(LruCache<K, ()>);

impl<K: Clone + Eq + Hash> Lru<K> {
    pub(super) fn new() -> Self {
        Lru(LruCache::unbounded())
    }

    pub(super) fn loaded(&mut self, key: K) {
        self.0.put(key, ());
    }

    pub(super) fn loaded_last(&mut self, key: K) {
        self.0.put(key.clone(), ());
        self.0.demote(&key);
    }

    pub(super) fn used(&mut self, key: &K) {
        self.0.promote(key);
    }

    pub(super) fn left(&mut self, key: &K) {
        self.0.pop(key);
    }

    pub(super) fn in_order(&self) -> impl Iterator<Item = K> {
        self.0.iter().rev().map(|(key, ())| key.clone())
    }
}

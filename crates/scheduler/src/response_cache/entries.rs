//! Cached answers by key, bounded by bytes; the least recently used leave first. Pure state: whoever owns it locks it.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use lru::LruCache;

/// Values that take up bytes, each on behalf of an owner.
///
/// `used` is the sum of the sizes of `entries` and never above `capacity`; `owned` has every key of `entries` under its
/// owner, and no other.
#[derive(Debug)]
pub(super) struct Entries<K: Hash + Eq, V> {
    capacity: u64,
    used: u64,
    entries: LruCache<K, Entry<V>>,
    owned: HashMap<u64, HashSet<K>>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: u64,
    owner: u64,
}

impl<K: Hash + Eq + Copy, V> Entries<K, V> {
    pub(super) fn new(capacity: u64) -> Self {
        Entries { capacity, used: 0, entries: LruCache::unbounded(), owned: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes that all values take.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// The value, now the most recently used.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Keeps a value, and returns those that had to leave for it, which the caller drops where nobody waits. A value that is
    /// larger than all the room there is leaves the others alone, and comes back itself.
    pub(super) fn put(&mut self, owner: u64, key: K, value: V, bytes: u64) -> Put<V> {
        if bytes > self.capacity {
            return Put { replaced: None, evicted: Vec::new(), refused: Some(value) };
        }
        let replaced = self.remove(&key);
        let mut evicted = Vec::new();
        while self.used + bytes > self.capacity {
            let (oldest, _) = self.entries.peek_lru().expect("invariant: what is used belongs to an entry");
            let oldest = *oldest;
            evicted.extend(self.remove(&oldest));
        }
        self.used += bytes;
        self.owned.entry(owner).or_default().insert(key);
        self.entries.put(key, Entry { value, bytes, owner });
        Put { replaced, evicted, refused: None }
    }

    /// Takes up to `most` of an owner's values out; none are left when fewer come.
    pub(super) fn take_of(&mut self, owner: u64, most: usize) -> Vec<V> {
        let keys: Vec<K> = self.owned.get(&owner).into_iter().flatten().take(most).copied().collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let Entry { value, bytes, owner } = self.entries.pop(key)?;
        self.used -= bytes;
        if let Some(keys) = self.owned.get_mut(&owner) {
            keys.remove(key);
            if keys.is_empty() {
                self.owned.remove(&owner);
            }
        }
        Some(value)
    }
}

/// What keeping a value led to.
#[derive(Debug)]
pub(super) struct Put<V> {
    /// The value that was there under the same key.
    #[expect(dead_code, reason = "held, so that it is dropped where the caller wants")]
    pub(super) replaced: Option<V>,
    /// The values that had to leave.
    pub(super) evicted: Vec<V>,
    /// The value itself, where it is larger than the cache.
    #[expect(dead_code, reason = "held, so that it is dropped where the caller wants")]
    pub(super) refused: Option<V>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Get(u8),
        Put { owner: u64, key: u8, bytes: u64 },
        Clear(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0u8..12).prop_map(Step::Get),
            4 => (0u64..3, 0u8..12, 0u64..60).prop_map(|(owner, key, bytes)| Step::Put { owner, key, bytes }),
            1 => (0u64..3).prop_map(Step::Clear),
        ];
        proptest::collection::vec(step, 0..120)
    }

    proptest! {
        /// Against a list in order of use, the oldest first.
        #[test]
        fn it_is_a_list_in_order_of_use(steps in steps()) {
            const CAPACITY: u64 = 100;
            let mut entries = Entries::new(CAPACITY);
            let mut model: Vec<(u64, u8, usize, u64)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Get(key) => {
                        let position = model.iter().position(|entry| entry.1 == key);
                        let expected = position.map(|position| { let entry = model.remove(position); model.push(entry); entry.2 });
                        prop_assert_eq!(entries.get(&key).copied(), expected);
                    }
                    Step::Put { owner, key, bytes } => {
                        let put = entries.put(owner, key, number, bytes);
                        model.retain(|entry| entry.1 != key);
                        let mut evicted = Vec::new();
                        while model.iter().map(|entry| entry.3).sum::<u64>() + bytes > CAPACITY {
                            evicted.push(model.remove(0).2);
                        }
                        model.push((owner, key, number, bytes));
                        prop_assert_eq!(put.evicted, evicted);
                    }
                    Step::Clear(owner) => {
                        let mut taken = Vec::new();
                        loop {
                            let some = entries.take_of(owner, 2);
                            taken.extend_from_slice(&some);
                            if some.len() < 2 {
                                break;
                            }
                        }
                        let mut expected: Vec<_> = model.iter().filter(|entry| entry.0 == owner).map(|entry| entry.2).collect();
                        model.retain(|entry| entry.0 != owner);
                        taken.sort_unstable();
                        expected.sort_unstable();
                        prop_assert_eq!(taken, expected);
                    }
                }
                prop_assert_eq!((entries.len(), entries.used()), (model.len(), model.iter().map(|entry| entry.3).sum()));
                prop_assert!(entries.used() <= CAPACITY);
                prop_assert_eq!(entries.owned.values().map(HashSet::len).sum::<usize>(), model.len());
            }
        }
    }

    #[test]
    fn what_is_larger_than_the_cache_leaves_the_others_alone() {
        let mut entries = Entries::new(10);
        entries.put(1, "small", 1, 10);
        let put = entries.put(1, "large", 2, 11);
        assert_eq!((put.evicted.len(), entries.len(), entries.get(&"small")), (0, 1, Some(&1)));
    }
}

//! What is in memory, in order of use, and what is held for loads and unloads under way.
//!
//! Invariant: `used` is the sum over `resident`, plus what reservations and unloads hold. An archive is in `resident`
//! exactly while requests can find it; it leaves only when nobody pins it.

use std::collections::BTreeMap;
use std::sync::Arc;

use inference::{Device, MemoryUsage};
use lru::LruCache;

use crate::eviction::{Candidate, RoomPlan, Shortage, never_fits, plan_room};
use crate::loaded::LoadedArchive;
use crate::route::ArchiveKey;

/// The archives in memory. Pure state: whoever owns it locks it, logs and unloads.
pub(crate) struct Residency {
    budget: MemoryUsage,
    used: MemoryUsage,
    resident: LruCache<ArchiveKey, Resident>,
    unloading: BTreeMap<ArchiveKey, usize>,
}

struct Resident {
    archive: Arc<LoadedArchive>,
    /// An operator asked for it: never evicted.
    kept: bool,
}

impl Residency {
    pub(crate) fn new(budget: MemoryUsage) -> Self {
        let used = MemoryUsage::default();
        Residency { budget, used, resident: LruCache::unbounded(), unloading: BTreeMap::new() }
    }

    pub(crate) fn budget(&self) -> &MemoryUsage {
        &self.budget
    }

    /// Bytes held on a device, loads and unloads under way included.
    pub(crate) fn used(&self, device: Device) -> u64 {
        self.used.get(device)
    }

    /// The archive, now the most recently used.
    pub(crate) fn touch(&mut self, key: &ArchiveKey) -> Option<&Arc<LoadedArchive>> {
        self.resident.get(key).map(|resident| &resident.archive)
    }

    /// The archive, its order of use unchanged.
    pub(crate) fn peek(&self, key: &ArchiveKey) -> Option<&Arc<LoadedArchive>> {
        self.resident.peek(key).map(|resident| &resident.archive)
    }

    /// Every resident archive, most recently used first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<LoadedArchive>> {
        self.resident.iter().map(|(_, resident)| &resident.archive)
    }

    /// Models of archives that hold memory on a device.
    pub(crate) fn models_on(&self, device: Device) -> usize {
        let there = self.iter().filter(|archive| archive.usage.get(device) > 0);
        there.map(|archive| archive.models.len()).sum()
    }

    pub(crate) fn count(&self) -> usize {
        self.resident.len()
    }

    /// Archives that are being unloaded.
    pub(crate) fn unloading(&self) -> impl Iterator<Item = &ArchiveKey> {
        self.unloading.keys()
    }

    /// What must happen before `need` fits; changes nothing.
    pub(crate) fn plan(&self, need: &MemoryUsage) -> RoomPlan<ArchiveKey> {
        let candidates: Vec<_> = self.resident.iter().rev().map(|(key, resident)| candidate(key, resident)).collect();
        plan_room(&self.budget, &self.used, need, &candidates)
    }

    /// The device on which `need` can never fit, whatever is unloaded.
    pub(crate) fn never_fits(&self, need: &MemoryUsage) -> Option<Shortage> {
        never_fits(&self.budget, &self.used, need)
    }

    /// Counts bytes as used on behalf of a load.
    pub(crate) fn hold(&mut self, usage: &MemoryUsage) {
        self.used.add_all(usage);
    }

    /// Gives held bytes back.
    pub(crate) fn release(&mut self, usage: &MemoryUsage) {
        self.used.remove_all(usage);
    }

    /// Makes an archive findable; its bytes must be held already. Returns the one that it takes the place of, whose bytes
    /// stay held until [`Residency::unloaded`].
    #[must_use]
    pub(crate) fn insert(&mut self, archive: Arc<LoadedArchive>, kept: bool) -> Option<Arc<LoadedArchive>> {
        let replaced = self.withdraw(&archive.key);
        self.resident.put(archive.key.clone(), Resident { archive, kept });
        replaced
    }

    /// Takes an archive out so that it can be unloaded, unless somebody pins it. Its bytes stay held until
    /// [`Residency::unloaded`].
    pub(crate) fn begin_unload(&mut self, key: &ArchiveKey) -> Option<Arc<LoadedArchive>> {
        let resident = self.resident.peek(key)?;
        if is_in_use(&resident.archive) {
            return None;
        }
        *self.unloading.entry(key.clone()).or_default() += 1;
        self.resident.pop(key).map(|resident| resident.archive)
    }

    /// [`Residency::begin_unload`] of the least recently used archive that nobody pins and that keeps files on disk.
    pub(crate) fn begin_unload_of_oldest_with_files(&mut self) -> Option<Arc<LoadedArchive>> {
        let evictable = |resident: &Resident| !resident.kept && !is_in_use(&resident.archive);
        let mut oldest_first = self.resident.iter().rev();
        let found = oldest_first.find(|(_, resident)| resident.archive.files.are_cached() && evictable(resident));
        let key = found.map(|(key, _)| key.clone())?;
        self.begin_unload(&key)
    }

    /// Takes an archive out of reach of new requests, whoever still pins it. Its bytes stay held until
    /// [`Residency::unloaded`].
    pub(crate) fn withdraw(&mut self, key: &ArchiveKey) -> Option<Arc<LoadedArchive>> {
        let resident = self.resident.pop(key)?;
        *self.unloading.entry(key.clone()).or_default() += 1;
        Some(resident.archive)
    }

    /// An unload is over: its memory is free.
    pub(crate) fn unloaded(&mut self, key: &ArchiveKey, usage: &MemoryUsage) {
        if let Some(count) = self.unloading.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.unloading.remove(key);
            }
        }
        self.release(usage);
    }
}

fn candidate(key: &ArchiveKey, resident: &Resident) -> Candidate<ArchiveKey> {
    let pinned = resident.kept || is_in_use(&resident.archive);
    Candidate { key: key.clone(), usage: resident.archive.usage.clone(), pinned }
}

/// Whether somebody pins the archive, or one of its models is in the middle of a sequence. Every pin holds a clone; the
/// residency itself holds one. New clones are made only under the residency's lock.
fn is_in_use(archive: &Arc<LoadedArchive>) -> bool {
    Arc::strong_count(archive) > 1 || archive.is_busy()
}

#[cfg(test)]
mod tests {
    use inference::TargetModel;
    use proptest::prelude::*;

    use super::*;
    use crate::loaded::Files;

    fn key(name: u8) -> ArchiveKey {
        ArchiveKey::Target(TargetModel::new(&format!("{name}.tar.gz")).expect("valid"))
    }

    fn archive(name: u8, bytes: u64) -> Arc<LoadedArchive> {
        let usage = MemoryUsage::on(Device::Host, bytes);
        let models = BTreeMap::new();
        Arc::new(LoadedArchive {
            key: key(name),
            version: "".into(),
            usage,
            models,
            entry: None,
            files: Files::Foreign,
            members: Vec::new(),
        })
    }

    /// What can happen to a residency, as a fuzzer sees it.
    #[derive(Clone, Debug)]
    enum Event {
        Load { name: u8, bytes: u64 },
        Reload { name: u8, bytes: u64 },
        Pin(u8),
        Unpin,
        FinishUnload,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (0u8..6, 1u64..60).prop_map(|(name, bytes)| Event::Load { name, bytes }),
            2 => (0u8..6, 1u64..60).prop_map(|(name, bytes)| Event::Reload { name, bytes }),
            2 => (0u8..6).prop_map(Event::Pin),
            1 => Just(Event::Unpin),
            2 => Just(Event::FinishUnload),
        ]
    }

    proptest! {
        #[test]
        fn the_books_always_balance(events in proptest::collection::vec(event(), 0..80)) {
            let mut residency = Residency::new(MemoryUsage::on(Device::Host, 100));
            let (mut pins, mut unloads, mut withdrawn) = (Vec::new(), Vec::new(), Vec::new());
            for event in events {
                match event {
                    Event::Load { name, bytes } if residency.peek(&key(name)).is_none() => {
                        let need = MemoryUsage::on(Device::Host, bytes);
                        match residency.plan(&need) {
                            RoomPlan::Fits => {
                                residency.hold(&need);
                                prop_assert!(residency.insert(archive(name, bytes), false).is_none());
                            }
                            RoomPlan::Evict(victims) => {
                                for victim in victims {
                                    unloads.push(residency.begin_unload(&victim).expect("only unpinned are planned"));
                                }
                            }
                            RoomPlan::Blocked(_) | RoomPlan::Never(_) => {}
                        }
                    }
                    Event::Load { .. } => {}
                    Event::Reload { name, bytes } => {
                        let need = MemoryUsage::on(Device::Host, bytes);
                        if residency.plan(&need) == RoomPlan::Fits {
                            residency.hold(&need);
                            let replaced = residency.insert(archive(name, bytes), false);
                            withdrawn.extend(replaced.iter().map(Arc::as_ptr));
                            unloads.extend(replaced);
                        }
                    }
                    Event::Pin(name) => pins.extend(residency.touch(&key(name)).cloned()),
                    Event::Unpin => drop(pins.pop()),
                    Event::FinishUnload => {
                        if let Some(archive) = unloads.pop() {
                            residency.unloaded(&archive.key, &archive.usage);
                        }
                    }
                }
                let resident: u64 = residency.iter().map(|archive| archive.usage.get(Device::Host)).sum();
                let unloading: u64 = unloads.iter().map(|archive| archive.usage.get(Device::Host)).sum();
                prop_assert_eq!(residency.used(Device::Host), resident + unloading);
                prop_assert!(residency.used(Device::Host) <= 100);
                for pin in &pins {
                    let is_found = residency.peek(&pin.key).is_some_and(|found| Arc::ptr_eq(found, pin));
                    prop_assert!(is_found || withdrawn.contains(&Arc::as_ptr(pin)), "a pinned archive left unasked");
                }
            }
        }
    }
}

//! What is in memory, in order of use, and what is held for loads and unloads under way.
//!
//! Invariant: `used` is the sum over `resident`, plus what reservations and unloads hold. An archive is in `resident`
//! exactly while requests can find it; it leaves only when nobody pins it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inference::{Device, MemoryUsage};

use crate::churn::Held;
use crate::eviction::{Candidate, RoomPlan, Shortage, never_fits, plan_room};
use crate::loaded::LoadedArchive;
use crate::policy::{Departure, EvictionPolicy, LoadCost, Ranking};
use crate::protection::Protection;
use crate::route::ArchiveKey;

/// The archives in memory. Pure state: whoever owns it locks it, logs and unloads.
pub(crate) struct Residency {
    budget: MemoryUsage,
    used: MemoryUsage,
    /// Invariant: `ranking` ranks exactly these.
    resident: HashMap<ArchiveKey, Resident>,
    ranking: Ranking<ArchiveKey>,
    longest_protection: Duration,
    unloading: BTreeMap<ArchiveKey, usize>,
    /// How often something has come or gone.
    changes: u64,
}

struct Resident {
    archive: Arc<LoadedArchive>,
    /// An operator asked for it: never evicted.
    kept: bool,
    protection: Protection,
}

/// How an archive came into memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// An operator asked for it: never evicted.
    pub(crate) kept: bool,
    /// How long loading took, waiting excluded.
    pub(crate) load: Duration,
    /// Nobody has asked for it: it leaves before what somebody has, and is not protected.
    pub(crate) is_unasked: bool,
    /// Nobody has asked for it, but another version of it may have served until now, or the same on another device: it stands
    /// where that stood, and is kept and protected as that was.
    pub(crate) is_renewal: bool,
}

impl Residency {
    /// Nothing is resident. No archive is protected for longer than `longest_protection`.
    pub(crate) fn new(budget: MemoryUsage, policy: EvictionPolicy, longest_protection: Duration) -> Self {
        Residency {
            budget,
            used: MemoryUsage::default(),
            resident: HashMap::new(),
            ranking: Ranking::new(policy),
            longest_protection,
            unloading: BTreeMap::new(),
            changes: 0,
        }
    }

    pub(crate) fn budget(&self) -> &MemoryUsage {
        &self.budget
    }

    /// Changes the budget; who owns this sees to what is held beyond it.
    pub(crate) fn set_budget(&mut self, budget: MemoryUsage) {
        self.budget = budget;
    }

    /// Bytes held on a device, loads and unloads under way included.
    pub(crate) fn used(&self, device: Device) -> u64 {
        self.used.get(device)
    }

    /// The archive, for a request that uses it.
    pub(crate) fn touch(&mut self, key: &ArchiveKey, now: Instant) -> Option<&Arc<LoadedArchive>> {
        let resident = self.resident.get_mut(key)?;
        resident.protection.used(now);
        self.ranking.used(key, now);
        Some(&resident.archive)
    }

    /// The archive, for whoever only looks.
    pub(crate) fn peek(&self, key: &ArchiveKey) -> Option<&Arc<LoadedArchive>> {
        self.resident.get(key).map(|resident| &resident.archive)
    }

    /// Decides whether an archive may be evicted.
    pub(crate) fn keep(&mut self, key: &ArchiveKey, is_kept: bool) {
        self.resident.get_mut(key).into_iter().for_each(|resident| resident.kept = is_kept);
        self.changes += 1;
    }

    /// Every resident archive, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<LoadedArchive>> {
        self.resident.values().map(|resident| &resident.archive)
    }

    /// What is held, as a whole.
    pub(crate) fn held(&self) -> Held {
        Held { budget: self.budget.clone(), used: self.used.clone(), archives: self.count() }
    }

    /// Models of archives that hold memory on a device.
    pub(crate) fn models_on(&self, device: Device) -> usize {
        let there = self.iter().filter(|archive| archive.usage.get(device) > 0);
        there.map(|archive| archive.models.len()).sum()
    }

    /// Bytes that nothing holds, on all devices together.
    pub(crate) fn free(&self) -> u64 {
        self.budget.iter().map(|(device, budget)| budget.saturating_sub(self.used.get(device))).sum()
    }

    /// The bytes that nothing holds on the one of these devices that has most of them.
    pub(crate) fn most_free(&self, of: impl Fn(Device) -> bool) -> u64 {
        let budgets = self.budget.iter().filter(|(device, _)| of(*device));
        budgets.map(|(device, budget)| budget.saturating_sub(self.used.get(device))).max().unwrap_or(0)
    }

    /// How often something has come or gone so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// What `tell` says of each archive, the one that should leave last first.
    pub(crate) fn by_worth<T>(&mut self, tell: impl Fn(&LoadedArchive) -> Option<T>) -> Vec<T> {
        let Residency { resident, ranking, .. } = self;
        let told = ranking.in_order().filter_map(|key| tell(&resident.get(&key)?.archive));
        let mut told: Vec<T> = told.collect();
        told.reverse();
        told
    }

    pub(crate) fn count(&self) -> usize {
        self.resident.len()
    }

    /// Archives that are being unloaded.
    pub(crate) fn unloading(&self) -> impl Iterator<Item = &ArchiveKey> {
        self.unloading.keys()
    }

    /// Whether `need` fits as it is.
    pub(crate) fn fits(&self, need: &MemoryUsage) -> bool {
        plan_room::<ArchiveKey>(&self.budget, &self.used, need, []) == RoomPlan::Fits
    }

    /// What must happen before `need` fits; changes nothing. What is protected stays for who is patient.
    pub(crate) fn plan(&mut self, need: &MemoryUsage, is_patient: bool, now: Instant) -> RoomPlan<ArchiveKey> {
        let Residency { budget, used, resident, ranking, .. } = self;
        let in_order = ranking.in_order().filter_map(|key| candidate(key, resident, is_patient, now));
        plan_room(budget, used, need, in_order)
    }

    /// What could be evicted now. What is protected stays for who is patient.
    pub(crate) fn evictable(&self, is_patient: bool, now: Instant) -> MemoryUsage {
        let mut evictable = MemoryUsage::default();
        let unpinned = self.resident.values().filter(|resident| !is_pinned(resident, is_patient, now));
        unpinned.for_each(|resident| evictable.add_all(&resident.archive.usage_now()));
        evictable
    }

    /// When the next protection ends, if no more requests come.
    pub(crate) fn next_unprotected(&self, now: Instant) -> Option<Instant> {
        self.resident.values().filter_map(|resident| resident.protection.ends(now)).min()
    }

    /// The device on which `need` can never fit, whatever is unloaded.
    pub(crate) fn never_fits(&self, need: &MemoryUsage) -> Option<Shortage> {
        never_fits(&self.budget, &self.used, need)
    }

    /// Counts bytes as used on behalf of a load.
    pub(crate) fn hold(&mut self, usage: &MemoryUsage) {
        self.used.add_all(usage);
        debug_assert!(
            usage.iter().all(|(device, _)| self.used.get(device) <= self.budget.get(device)),
            "only what fits is held"
        );
    }

    /// Gives held bytes back.
    pub(crate) fn release(&mut self, usage: &MemoryUsage) {
        self.used.remove_all(usage);
    }

    /// Makes an archive findable; its bytes must be held already. Returns the one that it takes the place of, whose bytes
    /// stay held until [`Residency::unloaded`].
    #[must_use]
    pub(crate) fn insert(
        &mut self,
        archive: Arc<LoadedArchive>,
        arrival: Arrival,
        now: Instant,
    ) -> Option<Arc<LoadedArchive>> {
        // It stays ranked: it is the same archive as far as its use goes.
        let replaced = self.take_out(&archive.key);
        let bytes = archive.usage.iter().map(|(_, bytes)| bytes).sum();
        let cost = LoadCost { bytes, seconds: arrival.load.as_secs_f64() };
        let key = archive.key.clone();
        let (kept, protection) = match &replaced {
            Some(old) if arrival.is_renewal => {
                self.ranking.renewed(&key, cost);
                (old.kept, old.protection)
            }
            _ if arrival.is_unasked => {
                self.ranking.loaded_unasked(key.clone(), cost, now);
                (arrival.kept, Protection::new(Duration::ZERO, self.longest_protection, now))
            }
            _ => {
                self.ranking.loaded(key.clone(), cost, now);
                (arrival.kept, Protection::new(arrival.load, self.longest_protection, now))
            }
        };
        self.changes += 1;
        self.resident.insert(key, Resident { archive, kept, protection });
        replaced.map(|resident| resident.archive)
    }

    /// Takes an archive out so that it can be unloaded for the room that it holds, unless somebody pins it. Its bytes stay
    /// held until [`Residency::unloaded`].
    pub(crate) fn begin_unload(&mut self, key: &ArchiveKey) -> Option<Arc<LoadedArchive>> {
        let resident = self.resident.get(key)?;
        if is_in_use(&resident.archive) {
            return None;
        }
        self.take(key, Departure::Evicted)
    }

    /// [`Residency::begin_unload`] of the first archive in order that nobody pins and that keeps files on disk. Protection
    /// only puts it behind the others.
    pub(crate) fn begin_unload_of_files(&mut self, now: Instant) -> Option<Arc<LoadedArchive>> {
        let Residency { resident, ranking, .. } = self;
        let has_files = |key: &ArchiveKey| resident.get(key).is_some_and(|r| r.archive.files.are_cached());
        let (mut unprotected, mut protected) = (None, None);
        for key in ranking.in_order().filter(has_files) {
            match &resident[&key] {
                found if found.kept || is_in_use(&found.archive) => {}
                found if found.protection.ends(now).is_some() => drop(protected.get_or_insert(key)),
                _ => {
                    unprotected = Some(key);
                    break;
                }
            }
        }
        self.begin_unload(&unprotected.or(protected)?)
    }

    /// Takes an archive out of reach of new requests, whoever still pins it. Its bytes stay held until
    /// [`Residency::unloaded`].
    pub(crate) fn withdraw(&mut self, key: &ArchiveKey) -> Option<Arc<LoadedArchive>> {
        self.take(key, Departure::Removed)
    }

    fn take(&mut self, key: &ArchiveKey, why: Departure) -> Option<Arc<LoadedArchive>> {
        let resident = self.take_out(key)?;
        self.ranking.left(key, why);
        Some(resident.archive)
    }

    /// Takes an archive out, and leaves the ranking as it is.
    fn take_out(&mut self, key: &ArchiveKey) -> Option<Resident> {
        let resident = self.resident.remove(key)?;
        self.changes += 1;
        *self.unloading.entry(key.clone()).or_default() += 1;
        Some(resident)
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

fn candidate(
    key: ArchiveKey,
    resident: &HashMap<ArchiveKey, Resident>,
    is_patient: bool,
    now: Instant,
) -> Option<Candidate<ArchiveKey>> {
    let resident = resident.get(&key)?;
    Some(Candidate { key, usage: resident.archive.usage_now(), pinned: is_pinned(resident, is_patient, now) })
}

/// Whether an archive has to stay for now.
fn is_pinned(resident: &Resident, is_patient: bool, now: Instant) -> bool {
    let is_protected = is_patient && resident.protection.ends(now).is_some();
    resident.kept || is_protected || is_in_use(&resident.archive)
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
    use crate::loaded::{Elsewhere, Files};

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
            took: Duration::ZERO,
            elsewhere: Elsewhere::default(),
            models,
            entry: None,
            files: Files::Foreign,
            members: Vec::new(),
        })
    }

    #[test]
    fn what_is_replaced_keeps_its_standing() {
        let (now, arrival) =
            (Instant::now(), Arrival { kept: false, load: Duration::ZERO, is_unasked: false, is_renewal: false });
        let mut residency = Residency::new(MemoryUsage::on(Device::Host, 100), EvictionPolicy::S3Fifo, Duration::ZERO);
        let load = |residency: &mut Residency, name| {
            residency.hold(&MemoryUsage::on(Device::Host, 10));
            let replaced = residency.insert(archive(name, 10), arrival, now);
            replaced.iter().for_each(|replaced| residency.unloaded(&replaced.key, &replaced.usage));
            replaced.is_some()
        };
        assert!(!load(&mut residency, 0) && !load(&mut residency, 1));
        for _ in 0..2 {
            residency.touch(&key(0), now);
        }
        let evicted = residency.begin_unload(&key(1)).expect("nobody pins it");
        residency.unloaded(&evicted.key, &evicted.usage);
        // It has passed its trial, and is loaded anew; what comes after it has not.
        assert!(load(&mut residency, 0) && !load(&mut residency, 2));
        assert_eq!(residency.plan(&MemoryUsage::on(Device::Host, 90), true, now), RoomPlan::Evict(vec![key(2)]));
    }

    #[test]
    fn a_newer_version_that_nobody_asked_for_is_no_use() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let arrival = Arrival { kept: false, load: second, is_unasked: false, is_renewal: false };
        for policy in EvictionPolicy::ALL {
            let mut residency = Residency::new(MemoryUsage::on(Device::Host, 100), policy, second);
            let load = |residency: &mut Residency, name, arrival, now| {
                residency.hold(&MemoryUsage::on(Device::Host, 10));
                let replaced = residency.insert(archive(name, 10), arrival, now);
                replaced.iter().for_each(|replaced| residency.unloaded(&replaced.key, &replaced.usage));
            };
            load(&mut residency, 0, arrival, now);
            load(&mut residency, 1, arrival, now);
            let (later, need) = (now + second * 2, MemoryUsage::on(Device::Host, 90));
            let before = residency.plan(&need, true, later);
            let RoomPlan::Evict(first) = &before else { panic!("{policy}: {before:?}") };
            assert_eq!(first.len(), 1, "{policy}");
            for name in [0, 1] {
                load(&mut residency, name, Arrival { is_renewal: true, ..arrival }, later);
                assert_eq!(residency.plan(&need, true, later), before, "{policy}");
            }
        }
    }

    #[test]
    fn what_is_renewed_is_kept_and_protected_as_before() {
        let (now, second, usage) = (Instant::now(), Duration::from_secs(1), MemoryUsage::on(Device::Host, 10));
        let arrival = Arrival { kept: false, load: second, is_unasked: false, is_renewal: false };
        let renewal = Arrival { kept: true, load: second * 8, is_renewal: true, ..arrival };
        let mut residency = Residency::new(MemoryUsage::on(Device::Host, 20), EvictionPolicy::Lru, second * 8);
        for arrival in [arrival, renewal] {
            residency.hold(&usage);
            let replaced = residency.insert(archive(0, 10), arrival, now);
            replaced.iter().for_each(|replaced| residency.unloaded(&replaced.key, &replaced.usage));
        }
        let need = MemoryUsage::on(Device::Host, 20);
        assert!(matches!(residency.plan(&need, true, now), RoomPlan::Blocked(_)), "as the first load gave it");
        assert_eq!(residency.plan(&need, true, now + second), RoomPlan::Evict(vec![key(0)]), "and no longer");
    }

    #[test]
    fn protection_counts_for_who_is_patient() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut residency = Residency::new(MemoryUsage::on(Device::Host, 10), EvictionPolicy::Lru, second);
        let usage = MemoryUsage::on(Device::Host, 10);
        residency.hold(&usage);
        let arrival = Arrival { kept: false, load: second, is_unasked: false, is_renewal: false };
        assert!(residency.insert(archive(0, 10), arrival, now).is_none());
        assert!(matches!(residency.plan(&usage, true, now), RoomPlan::Blocked(_)));
        assert_eq!(residency.plan(&usage, false, now), RoomPlan::Evict(vec![key(0)]));
        assert_eq!(residency.plan(&usage, true, now + second), RoomPlan::Evict(vec![key(0)]));
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
            let (now, arrival) = (Instant::now(), Arrival { kept: false, load: Duration::ZERO, is_unasked: false, is_renewal: false });
            let mut residency = Residency::new(MemoryUsage::on(Device::Host, 100), EvictionPolicy::Lru, Duration::ZERO);
            let (mut pins, mut unloads, mut withdrawn) = (Vec::new(), Vec::new(), Vec::new());
            for event in events {
                match event {
                    Event::Load { name, bytes } if residency.peek(&key(name)).is_none() => {
                        let need = MemoryUsage::on(Device::Host, bytes);
                        match residency.plan(&need, true, now) {
                            RoomPlan::Fits => {
                                residency.hold(&need);
                                prop_assert!(residency.insert(archive(name, bytes), arrival, now).is_none());
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
                        if residency.fits(&need) {
                            residency.hold(&need);
                            let replaced = residency.insert(archive(name, bytes), arrival, now);
                            withdrawn.extend(replaced.iter().map(Arc::as_ptr));
                            unloads.extend(replaced);
                        }
                    }
                    Event::Pin(name) => pins.extend(residency.touch(&key(name), now).cloned()),
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

//! Decides which archives leave memory to make room for another. Pure: it knows sizes and an order, and does nothing.

use inference::{Device, MemoryUsage};

/// An archive that is in memory, as far as making room is concerned.
#[derive(Clone, Debug)]
pub struct Candidate<K> {
    /// Which archive.
    pub key: K,
    /// What it takes.
    pub usage: MemoryUsage,
    /// Whether it has to stay for now: a request or an operator holds it, or it is protected.
    pub pinned: bool,
}

/// What has to happen before `need` fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomPlan<K> {
    /// Nothing.
    Fits,
    /// These must be unloaded: the first in order that nobody pins, and no more than needed.
    Evict(Vec<K>),
    /// It would fit, but what is pinned (or being loaded or unloaded) leaves no room now.
    Blocked(Shortage),
    /// It cannot fit, whatever is unloaded.
    Never(Shortage),
}

/// Which device is too small, and by how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The device.
    pub device: Device,
    /// Bytes that were asked for on it.
    pub needed: u64,
    /// Its budget, in bytes.
    pub budget: u64,
    /// Bytes of the budget that nothing holds.
    pub free: u64,
    /// Bytes held by what is pinned, being loaded, or being unloaded.
    pub held: u64,
}

/// Plans room for `need`.
///
/// `used` is everything that counts against `budget` now: the candidates, and what is being loaded or unloaded.
/// `candidates` come in the order in which they should leave, and are asked for no further than needed. A device without a
/// budget has room for nothing. A need of nothing is for what is held beyond the budget, after it shrank, to go: as much of it
/// as can.
pub fn plan_room<K: Clone>(
    budget: &MemoryUsage,
    used: &MemoryUsage,
    need: &MemoryUsage,
    candidates: impl IntoIterator<Item = Candidate<K>>,
) -> RoomPlan<K> {
    if let Some(shortage) = never_fits(budget, used, need) {
        return RoomPlan::Never(shortage);
    }
    let mut missing = missing(budget, used, need);
    if is_nothing(&missing) {
        return RoomPlan::Fits;
    }
    let (mut victims, mut evictable) = (Vec::new(), MemoryUsage::default());
    for candidate in candidates.into_iter().filter(|candidate| !candidate.pinned) {
        evictable.add_all(&candidate.usage);
        if missing.iter().any(|(device, _)| candidate.usage.get(device) > 0) {
            missing.remove_all(&candidate.usage);
            victims.push(candidate);
        }
        if is_nothing(&missing) {
            return RoomPlan::Evict(spare_the_unneeded(budget, used, need, victims));
        }
    }
    if is_nothing(need) && !victims.is_empty() {
        return RoomPlan::Evict(victims.into_iter().map(|victim| victim.key).collect());
    }
    RoomPlan::Blocked(blocked(budget, used, need, &missing, &evictable))
}

fn is_nothing(usage: &MemoryUsage) -> bool {
    usage.iter().next().is_none()
}

/// The first device whose whole budget is smaller than `need`.
pub fn never_fits(budget: &MemoryUsage, used: &MemoryUsage, need: &MemoryUsage) -> Option<Shortage> {
    let (device, needed) = need.iter().find(|(device, bytes)| *bytes > budget.get(*device))?;
    let budget = budget.get(device);
    Some(Shortage { device, needed, budget, free: budget.saturating_sub(used.get(device)), held: 0 })
}

/// Bytes by which each device is short.
fn missing(budget: &MemoryUsage, used: &MemoryUsage, need: &MemoryUsage) -> MemoryUsage {
    let mut missing = MemoryUsage::default();
    let concerned = if is_nothing(need) { used } else { need };
    for (device, _) in concerned.iter() {
        missing.add(device, used.get(device).saturating_add(need.get(device)).saturating_sub(budget.get(device)));
    }
    missing
}

/// A later, larger victim can make an earlier one unnecessary; those that should leave last are spared first.
fn spare_the_unneeded<K: Clone>(
    budget: &MemoryUsage,
    used: &MemoryUsage,
    need: &MemoryUsage,
    victims: Vec<Candidate<K>>,
) -> Vec<K> {
    let mut left = used.clone();
    victims.iter().for_each(|victim| left.remove_all(&victim.usage));
    let mut needed = Vec::with_capacity(victims.len());
    for victim in victims.into_iter().rev() {
        left.add_all(&victim.usage);
        if !is_nothing(&missing(budget, &left, need)) {
            left.remove_all(&victim.usage);
            needed.push(victim.key);
        }
    }
    needed.reverse();
    needed
}

fn blocked(
    budget: &MemoryUsage,
    used: &MemoryUsage,
    need: &MemoryUsage,
    missing: &MemoryUsage,
    evictable: &MemoryUsage,
) -> Shortage {
    let device = missing.iter().next().map_or(Device::Host, |(device, _)| device);
    Shortage {
        device,
        needed: need.get(device),
        budget: budget.get(device),
        free: budget.get(device).saturating_sub(used.get(device)),
        held: used.get(device).saturating_sub(evictable.get(device)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usage(host: u64, gpu: u64) -> MemoryUsage {
        let mut usage = MemoryUsage::on(Device::Host, host);
        usage.add(Device::Gpu(0), gpu);
        usage
    }

    fn candidate(key: usize, host: u64, gpu: u64, pinned: bool) -> Candidate<usize> {
        Candidate { key, usage: usage(host, gpu), pinned }
    }

    #[test]
    fn evicts_in_order_and_no_more_than_needed() {
        let candidates = [candidate(0, 1, 0, false), candidate(1, 2, 0, true), candidate(2, 5, 0, false)];
        let plan = |need| plan_room(&usage(10, 0), &usage(8, 0), &usage(need, 0), candidates.clone());
        assert_eq!(plan(2), RoomPlan::Fits);
        assert_eq!(plan(3), RoomPlan::Evict(vec![0]));
        assert_eq!(plan(4), RoomPlan::Evict(vec![2]), "the larger one alone is enough");
        assert_eq!(plan(8), RoomPlan::Evict(vec![0, 2]));
        assert!(matches!(plan(9), RoomPlan::Blocked(Shortage { held: 2, needed: 9, .. })));
        assert!(matches!(plan(11), RoomPlan::Never(Shortage { budget: 10, .. })));
    }

    #[test]
    fn a_need_of_nothing_is_for_the_budget_to_be_kept() {
        let candidates = [candidate(0, 3, 1, false), candidate(1, 2, 0, true), candidate(2, 5, 0, false)];
        let plan = |host, gpu| plan_room(&usage(host, gpu), &usage(10, 1), &usage(0, 0), candidates.clone());
        assert_eq!(plan(10, 1), RoomPlan::Fits);
        assert_eq!(plan(8, 1), RoomPlan::Evict(vec![0]));
        assert_eq!(plan(10, 0), RoomPlan::Evict(vec![0]));
        assert_eq!(plan(1, 1), RoomPlan::Evict(vec![0, 2]), "what can go goes");
        let plan = plan_room(&usage(1, 1), &usage(2, 0), &usage(0, 0), candidates[1..2].to_vec());
        assert!(matches!(plan, RoomPlan::Blocked(Shortage { held: 2, needed: 0, .. })));
    }

    #[test]
    fn devices_are_counted_apart() {
        let candidates = [candidate(0, 4, 0, false), candidate(1, 0, 4, false)];
        let plan = plan_room(&usage(4, 4), &usage(4, 4), &usage(0, 1), candidates);
        assert_eq!(plan, RoomPlan::Evict(vec![1]));
    }

    proptest! {
        #[test]
        fn a_plan_makes_exactly_enough_room(
            sizes in proptest::collection::vec((0u64..8, 0u64..8, any::<bool>()), 0..8),
            slack in (0u64..6, 0u64..6),
            need in (0u64..16, 0u64..16),
        ) {
            let candidates: Vec<_> =
                sizes.iter().enumerate().map(|(key, (host, gpu, pinned))| candidate(key, *host, *gpu, *pinned)).collect();
            let mut used = MemoryUsage::default();
            candidates.iter().for_each(|c| used.add_all(&c.usage));
            let mut budget = used.clone();
            budget.add_all(&usage(slack.0, slack.1));
            let need = usage(need.0, need.1);
            let left_after = |without: &[usize]| {
                let mut left = used.clone();
                candidates.iter().filter(|c| without.contains(&c.key)).for_each(|c| left.remove_all(&c.usage));
                left
            };
            let fits = |without: &[usize]| missing(&budget, &left_after(without), &need).iter().next().is_none();
            let unpinned: Vec<usize> = candidates.iter().filter(|c| !c.pinned).map(|c| c.key).collect();
            match plan_room(&budget, &used, &need, candidates.clone()) {
                RoomPlan::Fits => prop_assert!(fits(&[])),
                RoomPlan::Evict(victims) => {
                    prop_assert!(victims.iter().all(|victim| unpinned.contains(victim)));
                    prop_assert!(fits(&victims));
                    for spared in 0..victims.len() {
                        let mut fewer = victims.clone();
                        fewer.remove(spared);
                        prop_assert!(!fits(&fewer), "{victims:?} is more than needed");
                    }
                }
                RoomPlan::Blocked(shortage) => {
                    prop_assert!(!fits(&unpinned));
                    prop_assert!(shortage.needed <= shortage.budget);
                }
                RoomPlan::Never(shortage) => prop_assert!(shortage.needed > shortage.budget),
            }
        }
    }
}

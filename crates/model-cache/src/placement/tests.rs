//! Ways and choices, by example and by property.

use proptest::prelude::*;

use super::*;
use crate::churn::Held;

const GPUS: [u32; 3] = [0, 1, 3];

fn group(kind: InstanceKind, count: u32, gpus: &[u32]) -> InstanceGroup {
    InstanceGroup { kind, count, gpus: gpus.to_vec(), rate_limiter: RateLimiter::default() }
}

fn usage(parts: &[(Device, u64)]) -> MemoryUsage {
    let mut usage = MemoryUsage::default();
    parts.iter().for_each(|(device, bytes)| usage.add(*device, *bytes));
    usage
}

#[test]
fn groups_go_where_they_can_run() {
    use Device::{Gpu, Host};
    use InstanceKind::{Auto, Cpu, Gpu as KindGpu, Model};
    // (groups, GPUs of the machine, instances of each way)
    let cases = [
        (vec![group(Cpu, 2, &[])], vec![0], vec![vec![Host, Host]]),
        (vec![group(Auto, 1, &[])], vec![], vec![vec![Host]]),
        (vec![group(Auto, 1, &[])], vec![0, 1], vec![vec![Gpu(0)], vec![Gpu(1)], vec![Host]]),
        (vec![group(Model, 1, &[])], vec![2], vec![vec![Gpu(2)], vec![Host]]),
        (vec![group(KindGpu, 2, &[])], vec![0, 1], vec![vec![Gpu(0); 2], vec![Gpu(1); 2]]),
        (vec![group(KindGpu, 1, &[1])], vec![0, 1], vec![vec![Gpu(1)]]),
        (vec![group(KindGpu, 2, &[0, 1])], vec![0, 1, 2], vec![vec![Gpu(0), Gpu(0), Gpu(1), Gpu(1)]]),
        (vec![group(Auto, 1, &[0, 1])], vec![0, 1], vec![vec![Gpu(0), Gpu(1)], vec![Host]]),
        (vec![group(KindGpu, 2, &[0, 1])], vec![], vec![vec![Host, Host]]),
        (
            vec![group(KindGpu, 1, &[]), group(Auto, 1, &[]), group(Cpu, 1, &[])],
            vec![0, 1],
            vec![vec![Gpu(0), Gpu(0), Host], vec![Gpu(1), Gpu(1), Host]],
        ),
        (vec![], vec![0], vec![vec![Host]]),
    ];
    for (groups, gpus, expected) in cases {
        let ways = ways("m", &groups, &gpus).expect("placeable");
        let instances: Vec<_> = ways.iter().map(|way| way.placement().instances).collect();
        assert_eq!(instances, expected, "{groups:?} on {gpus:?}");
    }
    let absent = ways("m", &[group(KindGpu, 1, &[7])], &[0]).expect_err("there is no such GPU");
    assert!(absent.message().contains("GPU 7"), "{absent}");
}

#[test]
fn what_is_known_of_one_gpu_is_known_of_the_others() {
    let all = ways("m", &[group(InstanceKind::Auto, 1, &[])], &[0, 1]).expect("placeable");
    let on_first = usage(&[(Device::Gpu(0), 7), (Device::Host, 1)]);
    let moved = usage(&[(Device::Gpu(1), 7), (Device::Host, 1)]);
    let known: Vec<_> = all.iter().map(|way| way.translate(Device::Gpu(0), &on_first)).collect();
    assert_eq!(known, [Some(on_first.clone()), Some(moved), None], "the host is another matter");
    let groups = [group(InstanceKind::Gpu, 1, &[0]), group(InstanceKind::Gpu, 1, &[])];
    let split = ways("m", &groups, &[0, 1]).expect("placeable");
    assert_eq!(split[1].translate(Device::Gpu(0), &on_first), None, "what of it is where?");
}

fn held(parts: &[(Device, u64, u64)]) -> Held {
    let budget = usage(&parts.iter().map(|(device, budget, _)| (*device, *budget)).collect::<Vec<_>>());
    let used = usage(&parts.iter().map(|(device, _, used)| (*device, *used)).collect::<Vec<_>>());
    Held { budget, used, archives: 0 }
}

fn sure(parts: &[(Device, u64)]) -> Need {
    Need { usage: usage(parts), is_sure: true }
}

/// A model that takes so much on any of these devices.
fn anywhere(devices: &[Device], bytes: u64) -> Vec<Need> {
    devices.iter().map(|device| sure(&[(*device, bytes)])).collect()
}

fn chosen(models: Vec<Vec<Need>>, held: &Held, evictable: &[(Device, u64)]) -> Vec<usize> {
    choose(&Demand::new(models), held, || usage(evictable)).ways
}

#[test]
fn a_model_goes_where_there_is_room() {
    use Device::{Gpu, Host};
    let held = held(&[(Host, 100, 0), (Gpu(0), 50, 30), (Gpu(1), 50, 10), (Gpu(2), 20, 0)]);
    let (gpus, auto) = ([Gpu(0), Gpu(1), Gpu(2)], [Gpu(0), Gpu(1), Gpu(2), Host]);
    assert_eq!(chosen(vec![anywhere(&gpus, 5)], &held, &[]), [1], "the most is left there");
    assert_eq!(chosen(vec![anywhere(&gpus, 45)], &held, &[(Gpu(0), 30), (Gpu(1), 10)]), [1], "fewer bytes leave");
    assert_eq!(chosen(vec![anywhere(&gpus, 45)], &held, &[(Gpu(0), 30)]), [0], "where they can leave at all");
    assert_eq!(chosen(vec![anywhere(&gpus, 45)], &held, &[]), [1], "to wait where less has to leave");
    assert_eq!(chosen(vec![anywhere(&auto, 45)], &held, &[(Gpu(1), 10)]), [3], "the host has room: nobody leaves");
    assert_eq!(chosen(vec![anywhere(&auto, 40)], &held, &[]), [1], "a GPU before the host");
    assert_eq!(chosen(vec![anywhere(&auto, 70)], &held, &[]), [3], "no GPU is large enough");
    let for_gpus = |models| choose(&Demand::new(models).on_gpus(), &held, MemoryUsage::default).ways;
    assert_eq!(for_gpus(vec![anywhere(&auto, 70)]), [1], "never on the host");
    assert_eq!(for_gpus(vec![anywhere(&[Host], 70)]), [0], "but for what can be nowhere else");
}

#[test]
fn models_of_an_archive_do_not_count_on_the_same_room() {
    use Device::{Gpu, Host};
    let held = held(&[(Host, 100, 0), (Gpu(0), 50, 0), (Gpu(1), 40, 0)]);
    let gpus = [Gpu(0), Gpu(1)];
    assert_eq!(chosen(vec![anywhere(&gpus, 30), anywhere(&gpus, 45)], &held, &[]), [1, 0], "the largest first");
    let fixed = vec![sure(&[(Gpu(0), 20)])];
    assert_eq!(chosen(vec![anywhere(&gpus, 40), fixed], &held, &[]), [1, 0], "after what can be nowhere else");
}

#[test]
fn an_estimate_somewhat_over_the_budget_is_doubted() {
    let held = held(&[(Device::Host, 100, 20)]);
    for (estimate, need) in [(50, 50), (100, 100), (150, 100), (200, 100), (300, 300)] {
        let of = |is_sure| vec![vec![Need { usage: usage(&[(Device::Host, estimate)]), is_sure }]];
        let asked = |is_sure| choose(&Demand::new(of(is_sure)), &held, MemoryUsage::default).usage.get(Device::Host);
        assert_eq!((asked(false), asked(true)), (need, estimate));
    }
}

fn any_group() -> impl Strategy<Value = InstanceGroup> {
    let kinds = [InstanceKind::Auto, InstanceKind::Cpu, InstanceKind::Gpu, InstanceKind::Model];
    let listed = prop::sample::subsequence(GPUS.to_vec(), 0..=GPUS.len());
    (prop::sample::select(kinds.to_vec()), 1u32..4, listed).prop_map(|(kind, count, gpus)| {
        let takes_list = matches!(kind, InstanceKind::Auto | InstanceKind::Gpu);
        group(kind, count, if takes_list { &gpus } else { &[] })
    })
}

/// The devices that a group may have instances on.
fn allowed(group: &InstanceGroup) -> Vec<Device> {
    let named = if group.gpus.is_empty() { &GPUS[..] } else { &group.gpus };
    let gpus = named.iter().map(|ordinal| Device::Gpu(*ordinal));
    match group.kind {
        InstanceKind::Cpu => vec![Device::Host],
        InstanceKind::Gpu => gpus.collect(),
        InstanceKind::Auto | InstanceKind::Model => gpus.chain([Device::Host]).collect(),
    }
}

const DEVICES: [Device; 4] = [Device::Host, Device::Gpu(0), Device::Gpu(1), Device::Gpu(3)];

/// What is held on a machine: (budget, used, of that evictable) by device.
fn machine() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
    let device = (0u64..60, 0u64..60, 0u64..60);
    let device = device.prop_map(|(budget, used, evictable)| {
        let used = used.min(budget);
        (budget, used, evictable.min(used))
    });
    proptest::collection::vec(device, DEVICES.len())
}

proptest! {
    #[test]
    fn every_way_keeps_to_the_groups(groups in proptest::collection::vec(any_group(), 1..4)) {
        for way in ways("m", &groups, &GPUS).expect("all are there") {
            let mut instances = way.placement().instances.into_iter();
            for group in &groups {
                // So many on each GPU that is listed, or so many on one device.
                let spread = if group.gpus.is_empty() { 1 } else { group.gpus.len() };
                let on_host = spread > 1 && instances.as_slice().first() == Some(&Device::Host);
                let expected = group.count as usize * if on_host { 1 } else { spread };
                let own: Vec<Device> = instances.by_ref().take(expected).collect();
                prop_assert_eq!(own.len(), expected);
                prop_assert!(own.iter().all(|device| allowed(group).contains(device)), "{:?} at {:?}", group, own);
                for device in &own {
                    prop_assert_eq!(own.iter().filter(|other| *other == device).count(), group.count as usize);
                }
            }
            prop_assert_eq!(instances.next(), None);
        }
    }

    /// A model is placed with nobody leaving where that can be, else where others can leave, else where it can ever fit.
    #[test]
    fn no_other_way_is_better(machine in machine(), sizes in proptest::collection::vec(0u64..70, DEVICES.len())) {
        let parts: Vec<_> = DEVICES.iter().zip(&machine).map(|(device, (budget, used, _))| (*device, *budget, *used)).collect();
        let evictable: Vec<_> = DEVICES.iter().zip(&machine).map(|(device, (_, _, evictable))| (*device, *evictable)).collect();
        let needs: Vec<Need> = DEVICES.iter().zip(&sizes).map(|(device, bytes)| sure(&[(*device, *bytes)])).collect();
        let way = chosen(vec![needs], &held(&parts), &evictable)[0];
        let after = |way: usize| machine[way].1 + sizes[way];
        let fits = |way: usize| sizes[way] == 0 || after(way) <= machine[way].0;
        let evicts = |way: usize| fits(way) || after(way) - machine[way].2 <= machine[way].0;
        let is_possible = |way: usize| sizes[way] <= machine[way].0;
        for (other, device) in DEVICES.iter().enumerate() {
            prop_assert!(fits(way) || !fits(other), "{device} would fit");
            prop_assert!(evicts(way) || !evicts(other), "{device} could be made to fit");
            prop_assert!(is_possible(way) || !is_possible(other), "{device} is large enough");
        }
    }

    /// What is asked for is what the chosen ways take, all together.
    #[test]
    fn the_whole_is_the_sum_of_the_models(
        machine in machine(),
        models in proptest::collection::vec(proptest::collection::vec((0usize..4, 1u64..40), 1..4), 0..4),
    ) {
        let parts: Vec<_> = DEVICES.iter().zip(&machine).map(|(device, (budget, used, _))| (*device, *budget, *used)).collect();
        let needs = |ways: &Vec<(usize, u64)>| ways.iter().map(|(at, bytes)| sure(&[(DEVICES[*at], *bytes)])).collect();
        let needs: Vec<Vec<Need>> = models.iter().map(needs).collect();
        let choice = choose(&Demand::new(needs.clone()), &held(&parts), MemoryUsage::default);
        prop_assert_eq!(choice.ways.len(), models.len());
        let mut total = MemoryUsage::default();
        needs.iter().zip(&choice.ways).for_each(|(ways, way)| total.add_all(&ways[*way].usage));
        prop_assert!(DEVICES.iter().all(|device| choice.usage.get(*device) == total.get(*device)));
    }
}

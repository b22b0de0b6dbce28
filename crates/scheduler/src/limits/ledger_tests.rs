//! The ledger under random claims: what it must never do; and its errors.

use inference::ResourceDemand;
use proptest::prelude::*;

use super::*;

fn limiter(priority: u32, resources: &[(&str, bool, u32)]) -> RateLimiter {
    let demand = |(name, global, count): &(&str, bool, u32)| ResourceDemand {
        name: (*name).to_owned(),
        global: *global,
        count: *count,
    };
    RateLimiter { resources: resources.iter().map(demand).collect(), priority }
}

fn owner(model: u64) -> Owner {
    Owner { model, instance: 0 }
}

/// Lets all models claim again as soon as they have run, each for so many rounds of one tick; how often each ran.
fn runs(ledger: &mut Ledger<u64>, models: u64, ticks: usize) -> Vec<u32> {
    let mut counts = vec![0; usize::try_from(models).expect("few")];
    (0..models).for_each(|model| {
        ledger.claim(owner(model), model);
    });
    for _ in 0..ticks {
        let granted = ledger.grant();
        for (owner, model) in granted {
            counts[usize::try_from(model).expect("few")] += 1;
            ledger.release(owner, false);
            ledger.claim(owner, model);
        }
    }
    counts
}

#[test]
fn chances_follow_priorities() {
    let mut ledger = Ledger::new(1, Vec::new());
    for (model, priority) in [1, 2, 4].into_iter().enumerate() {
        ledger.open(model as u64, "m", &[(Device::Host, limiter(priority, &[]))]).expect("nothing is needed");
    }
    let counts = runs(&mut ledger, 3, 700);
    for (count, expected) in counts.iter().zip([400u32, 200, 100]) {
        assert!(count.abs_diff(expected) <= 2, "{counts:?}");
    }
}

#[test]
fn a_large_demand_is_not_starved_by_small_ones() {
    let mut ledger = Ledger::new(8, Vec::new());
    ledger.open(0, "large", &[(Device::Host, limiter(1, &[("R", true, 4)]))]).expect("enough");
    for model in 1..5 {
        ledger.open(model, "small", &[(Device::Host, limiter(1, &[("r", true, 1)]))]).expect("enough");
    }
    // The small ones run one after the other, so that never all of the resource is free by itself.
    let mut running = std::collections::VecDeque::new();
    let mut large = 0;
    (0..5).for_each(|model| {
        ledger.claim(owner(model), model);
    });
    for _ in 0..400 {
        running.extend(ledger.grant());
        let (ended, model) = running.pop_front().expect("something always runs");
        large += u32::from(model == 0);
        ledger.release(ended, false);
        ledger.claim(ended, model);
    }
    assert!(large >= 70, "a fifth of all chances: {large}");
}

#[test]
fn what_can_never_run_is_refused() {
    let limit = |name: &str, count, gpu| ResourceLimit { name: name.to_owned(), count, gpu };
    let mut ledger: Ledger<()> = Ledger::new(1, vec![limit("R", 3, None), limit("R", 1, Some(1)), limit("g", 2, None)]);
    let mut open = |model, device, resources: &[(&str, bool, u32)]| {
        let opened = ledger.open(model, "m", &[(device, limiter(1, resources))]);
        opened.map_or_else(|error| error.message().to_owned(), |()| "ok".to_owned())
    };
    assert_eq!(open(1, Device::Gpu(0), &[("r", false, 3)]), "ok");
    assert_eq!(open(2, Device::Host, &[("free", true, 100)]), "ok");
    for (device, resources, expected) in [
        (Device::Gpu(0), ("r", false, 4), "resource 'r' is limited to 3"),
        (Device::Gpu(1), ("R", false, 2), "resource 'r' is limited to 1"),
        (Device::Host, ("G", true, 3), "resource 'g' is limited to 2"),
        (Device::Host, ("R", true, 1), "resource 'r' is present as both global and device-specific"),
    ] {
        let error = open(9, device, &[resources]);
        assert!(error.contains(expected), "{error}");
    }
    let own = ledger.open(
        9,
        "m",
        &[(Device::Host, limiter(1, &[("x", true, 1)])), (Device::Host, limiter(1, &[("x", false, 1)]))],
    );
    assert!(own.is_err(), "a model that contradicts itself");
    ledger.close(1);
    ledger.open(3, "m", &[(Device::Host, limiter(1, &[("r", true, 1)]))]).expect("nobody has it per device any more");
}

#[derive(Clone, Debug)]
enum Event {
    Claim(u64),
    Withdraw(usize),
    Release(usize, bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0u64..4).prop_map(Event::Claim),
        1 => (0usize..8).prop_map(Event::Withdraw),
        3 => (0usize..8, any::<bool>()).prop_map(|(index, unused)| Event::Release(index, unused)),
    ];
    proptest::collection::vec(event, 1..120)
}

proptest! {
    /// Never more than there is; every claim is granted, withdrawn or waits; and when all that runs has ended, whoever waits
    /// gets its turn.
    #[test]
    fn nothing_is_given_twice_and_nobody_is_forgotten(
        events in events(),
        places in 1usize..4,
        demands in proptest::collection::vec((1u32..4, 0u32..4, 0u32..3), 4),
    ) {
        let mut ledger = Ledger::new(places, vec![ResourceLimit { name: "a".to_owned(), count: 4, gpu: None }]);
        let needs = |(_, a, b): (u32, u32, u32)| {
            let all = [("a", true, a), ("b", false, b)];
            all.into_iter().filter(|(_, _, count)| *count > 0).collect::<Vec<_>>()
        };
        for (model, demand) in demands.iter().enumerate() {
            let limiter = limiter(demand.0, &needs(*demand));
            ledger.open(model as u64, "m", &[(Device::Host, limiter)]).expect("there is enough");
        }
        let most = demands.iter().map(|(_, _, b)| *b).max().unwrap_or(0);
        let (mut waiting, mut running, mut claimed) = (Vec::new(), Vec::new(), 0);
        let step = |ledger: &mut Ledger<u64>, waiting: &mut Vec<u64>, running: &mut Vec<Owner>| {
            for (owner, claim) in ledger.grant() {
                let position = waiting.iter().position(|waiting| *waiting == claim).expect("it waited, once");
                waiting.remove(position);
                running.push(owner);
            }
            let sum = |of: fn(&(u32, u32, u32)) -> u32| -> u32 {
                running.iter().map(|owner| of(&demands[usize::try_from(owner.model).expect("few")])).sum()
            };
            assert!(running.len() <= places && sum(|d| d.1) <= 4 && sum(|d| d.2) <= most, "{running:?}");
        };
        for event in events {
            match event {
                Event::Claim(model) => {
                    claimed += 1;
                    let claim = ledger.claim(owner(model), claimed);
                    prop_assert_eq!(claim, claimed);
                    waiting.push(claim);
                }
                Event::Withdraw(index) if index < waiting.len() => {
                    prop_assert!(ledger.withdraw(waiting.remove(index)).is_some());
                }
                Event::Release(index, unused) if index < running.len() => ledger.release(running.remove(index), unused),
                Event::Withdraw(_) | Event::Release(..) => {}
            }
            step(&mut ledger, &mut waiting, &mut running);
        }
        while !waiting.is_empty() {
            prop_assert!(!running.is_empty(), "somebody waits although nothing runs: {waiting:?}");
            ledger.release(running.remove(0), false);
            step(&mut ledger, &mut waiting, &mut running);
        }
    }
}

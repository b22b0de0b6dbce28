//! The learned delay against fixed ones, in a simulation of one instance under made-up time, and what it must never do.

use proptest::prelude::*;
use test_util::dice::Dice;

use super::pace::Gathered;
use super::*;

/// How requests come: so many clients, each of which sends again after it has its answer and has thought.
#[derive(Clone, Copy, Debug)]
struct Load {
    clients: usize,
    /// Microseconds on average; each pause is drawn from an exponential distribution.
    think: f64,
}

/// A model: what a batch costs, and each of its rows, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Costs {
    batch: f64,
    row: f64,
}

/// Of one simulation.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// Mean, in microseconds.
    latency: f64,
    /// Requests a second.
    throughput: f64,
}

struct Simulation {
    start: Instant,
    batcher: Batcher<usize>,
    costs: Costs,
    now: f64,
    busy_until: f64,
    took: f64,
    rows: u32,
    running: Vec<usize>,
    arrivals: Vec<f64>,
    sent: Vec<f64>,
    dice: Dice,
}

impl Simulation {
    fn run(load: Load, costs: Costs, delay: u64, adaptive: bool) -> Outcome {
        let rules = Rules {
            max_rows: 32,
            preferred: Vec::new(),
            delay: Duration::from_micros(delay),
            adaptive,
            in_order: false,
        };
        let mut dice = Dice::new(1);
        let arrivals = (0..load.clients).map(|_| dice.exponential(load.think)).collect();
        let simulation = Simulation {
            start: Instant::now(),
            batcher: Batcher::new(rules),
            costs,
            now: 0.0,
            busy_until: f64::INFINITY,
            took: 0.0,
            rows: 0,
            running: Vec::new(),
            arrivals,
            sent: vec![0.0; load.clients],
            dice,
        };
        simulation.serve(load, 5_000)
    }

    fn at(&self, micros: f64) -> Instant {
        self.start + Duration::from_nanos((micros * 1000.0) as u64)
    }

    fn serve(mut self, load: Load, count: usize) -> Outcome {
        let (mut done, mut latency, mut wake) = (0, 0.0, f64::INFINITY);
        while done < count {
            let next = self.arrivals.iter().copied().fold(f64::INFINITY, f64::min);
            self.now = next.min(self.busy_until).min(wake).max(self.now);
            for client in 0..load.clients {
                if self.arrivals[client] <= self.now {
                    self.arrivals[client] = f64::INFINITY;
                    self.send(client);
                }
            }
            if self.busy_until <= self.now {
                for client in std::mem::take(&mut self.running) {
                    latency += self.now - self.sent[client];
                    done += 1;
                    self.arrivals[client] = self.now + self.dice.exponential(load.think);
                }
                self.busy_until = f64::INFINITY;
                let (now, took) = (self.at(self.now), Duration::from_nanos((self.took * 1000.0) as u64));
                if let Some(pace) = self.batcher.pace() {
                    pace.ran(self.rows, took, now);
                }
            }
            wake = self.decide();
        }
        Outcome { latency: latency / done as f64, throughput: done as f64 / self.now * 1e6 }
    }

    fn send(&mut self, client: usize) {
        self.sent[client] = self.now;
        let arrived = self.at(self.now);
        let (signature, terms) = (Signature::default(), Terms::default());
        let candidate = Candidate { signature, rows: 1, arrived, terms, payload: client };
        self.batcher.push(candidate, usize::MAX).expect("no bound");
    }

    /// Starts what is due if the instance is free; when to ask again.
    fn decide(&mut self) -> f64 {
        if self.busy_until.is_finite() {
            return f64::INFINITY;
        }
        match self.batcher.next(self.at(self.now)).next {
            Next::Run(batch) => {
                self.rows = batch.len() as u32;
                self.took = self.costs.batch + self.costs.row * batch.len() as f64;
                self.busy_until = self.now + self.took;
                self.running = batch;
                f64::INFINITY
            }
            Next::Wait(Some(at)) => at.duration_since(self.start).as_nanos() as f64 / 1000.0 + 0.002,
            Next::Wait(None) | Next::Idle => f64::INFINITY,
        }
    }
}

/// The delay that the configuration allows, in microseconds.
const DELAY: u64 = 20_000;

const MODELS: [Costs; 3] = [
    Costs { batch: 1_000.0, row: 1_000.0 },
    Costs { batch: 4_000.0, row: 250.0 },
    Costs { batch: 100.0, row: 3_000.0 },
];

fn table() -> Vec<(Load, Costs, [Outcome; 3])> {
    let loads =
        [(1, 1e6), (1, 100.0), (4, 1e6), (4, 20_000.0), (16, 100.0), (16, 5_000.0), (64, 100.0), (64, 20_000.0)];
    let loads = loads.map(|(clients, think)| Load { clients, think });
    let all = loads.into_iter().flat_map(|load| MODELS.map(|costs| (load, costs)));
    all.map(|(load, costs)| {
        let run = |delay, adaptive| Simulation::run(load, costs, delay, adaptive);
        (load, costs, [run(0, false), run(DELAY, false), run(DELAY, true)])
    })
    .collect()
}

#[test]
fn the_learned_delay_is_as_good_as_none_at_low_load_and_as_a_fixed_one_at_high_load() {
    for (load, costs, [none, fixed, learned]) in table() {
        let best = none.throughput.max(fixed.throughput);
        assert!(learned.throughput >= 0.98 * best, "{load:?} {costs:?}: {learned:?} against {best}");
        let least = none.latency.min(fixed.latency);
        assert!(learned.latency <= 1.03 * least, "{load:?} {costs:?}: {learned:?} against {least}");
    }
}

/// Clients that come back at once, after a batch that costs far more than its rows: held for a moment, one batch takes all
/// of them instead of half, and half.
#[test]
fn where_a_moment_is_worth_it_the_learned_delay_beats_both() {
    let (load, costs) = (Load { clients: 16, think: 100.0 }, MODELS[1]);
    let [none, fixed, learned] = [(0, false), (DELAY, false), (DELAY, true)]
        .map(|(delay, adaptive)| Simulation::run(load, costs, delay, adaptive));
    assert!(learned.throughput > 1.15 * none.throughput, "{learned:?} against {none:?}");
    assert!(learned.throughput > 2.0 * fixed.throughput, "{learned:?} against {fixed:?}");
}

proptest! {
    /// Whatever was learned: nobody waits beyond the configured delay, and a batch that is full starts at once.
    #[test]
    fn nobody_waits_for_longer_than_is_configured(
        gaps in proptest::collection::vec(0u64..20_000, 1..40),
        took in proptest::collection::vec((1u32..9, 0u64..50_000), 0..40),
        delay in 0u64..5_000,
    ) {
        let rules = Rules {
            max_rows: 8, preferred: Vec::new(), delay: Duration::from_micros(delay), adaptive: true, in_order: false,
        };
        let (mut batcher, mut now, mut waiting) = (Batcher::new(rules), Instant::now(), Vec::new());
        for (index, gap) in gaps.iter().enumerate() {
            now += Duration::from_micros(*gap);
            let candidate = Candidate {
                signature: Signature::default(), rows: 1, arrived: now, terms: Terms::default(), payload: now,
            };
            batcher.push(candidate, 100).expect("room");
            waiting.push(now);
            if let Some((rows, took)) = took.get(index) {
                batcher.pace().expect("adaptive").ran(*rows, Duration::from_micros(*took), now);
            }
            match batcher.next(now).next {
                Next::Run(batch) => waiting.retain(|arrived| !batch.contains(arrived)),
                Next::Wait(until) => {
                    prop_assert!(waiting.len() < 8);
                    let until = until.expect("the delay is short");
                    prop_assert!(until > now && until <= waiting[0] + Duration::from_micros(delay));
                }
                Next::Idle => prop_assert!(false, "somebody waits"),
            }
        }
    }

    /// Who waits at all waits for twice the typical gap after the last one; and nobody where nothing is saved.
    #[test]
    fn a_wait_is_twice_the_typical_gap(gap in 10u64..2_000, fixed in 0u64..50_000, row in 1u64..5_000, requests in 1usize..20) {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut latest = start;
        for index in 0..50 {
            latest = start + Duration::from_micros(gap * index);
            pace.arrived(&Signature::default(), 1, latest);
        }
        for rows in [1, 8, 2, 7, 3, 6].into_iter().cycle().take(200) {
            pace.ran(rows, Duration::from_micros(fixed + row * u64::from(rows)), start);
        }
        let gathered = Gathered { requests, latest };
        let wait = pace.wait_until(&gathered).map(|until| until - latest);
        if let Some(wait) = wait {
            let off = wait.abs_diff(Duration::from_micros(2 * gap));
            prop_assert!(off < Duration::from_micros(2), "{wait:?} for gaps of {gap}");
        }
        let worth = 2 * gap * (requests as u64 + 1) < fixed;
        prop_assert!(wait.is_none() || worth, "{wait:?} costs more than the {fixed} that it can save");
    }
}

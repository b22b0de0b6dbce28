//! The batcher under made-up time: what it must never do, whatever comes; and its rules one by one.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// A request as it comes; times in ticks of a millisecond.
#[derive(Clone, Debug)]
struct Arrival {
    gap: u64,
    rows: u32,
    signature: u32,
    level: u64,
    reject: Option<u64>,
    delay: Option<u64>,
    cancel: Option<u64>,
}

#[derive(Clone, Debug)]
struct Scene {
    rules: Rules,
    instances: usize,
    /// How long the executions take, over and over.
    durations: Vec<u64>,
    bound: usize,
    level_bound: Option<u32>,
    arrivals: Vec<Arrival>,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let arrival = (0u64..3, 1u32..9, 0u32..2, 0u64..3, option::of(1u64..12), option::of(1u64..6), option::of(0u64..9));
    let rules = (1u32..9, vec(1u32..9, 0..3), 0u64..6, any::<bool>());
    let rest = (1usize..4, vec(1u64..7, 1..4), 1usize..12, option::of(1u32..5));
    (rules, rest, vec(arrival, 1..40)).prop_map(|(rules, rest, arrivals)| {
        let (max_rows, mut preferred, delay, in_order) = rules;
        preferred.retain(|size| *size <= max_rows);
        let (instances, durations, bound, level_bound) = rest;
        let arrival = |(gap, rows, signature, level, reject, delay, cancel): (_, u32, _, _, _, _, _)| Arrival {
            gap,
            rows: rows.min(max_rows),
            signature,
            // Where order is promised there is one level, and nobody is delayed.
            level: if in_order { 0 } else { level },
            reject,
            delay: if in_order { None } else { delay },
            cancel,
        };
        let rules = Rules { max_rows, preferred, delay: Duration::from_millis(delay), adaptive: false, in_order };
        let arrivals = arrivals.into_iter().map(arrival).collect();
        Scene { rules, instances, durations, bound, level_bound, arrivals }
    })
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ran,
    Expired,
    Cancelled,
    Refused,
}

struct Simulation {
    scene: Scene,
    start: Instant,
    batcher: Batcher<usize>,
    arrived: Vec<u64>,
    tickets: Vec<Option<Ticket>>,
    ends: Vec<Option<End>>,
    /// When each instance is free again.
    busy: Vec<u64>,
    order: Vec<usize>,
    batches: usize,
}

impl Simulation {
    fn new(scene: Scene) -> Self {
        let count = scene.arrivals.len();
        Simulation {
            start: Instant::now(),
            batcher: Batcher::new(scene.rules.clone()),
            arrived: Vec::new(),
            tickets: Vec::new(),
            ends: vec![None; count],
            busy: vec![0; scene.instances],
            order: Vec::new(),
            batches: 0,
            scene,
        }
    }

    fn run(mut self) {
        let mut due: Vec<u64> = Vec::new();
        for arrival in &self.scene.arrivals {
            due.push(due.last().unwrap_or(&0) + arrival.gap);
        }
        let mut now = 0;
        while now < 2_000 && (self.tickets.len() < due.len() || self.batcher.len() > 0) {
            while due.get(self.tickets.len()).is_some_and(|due| *due <= now) {
                self.arrive(now);
            }
            self.cancel(now);
            self.decide(now);
            now += 1;
        }
        assert!(self.ends.iter().all(Option::is_some), "nobody is lost: {:?}", self.ends);
        if self.scene.rules.in_order {
            assert!(self.order.is_sorted(), "the order is kept: {:?}", self.order);
        }
    }

    fn at(&self, tick: u64) -> Instant {
        self.start + Duration::from_millis(tick)
    }

    fn end(&mut self, id: usize, end: End) {
        assert_eq!(self.ends[id].replace(end), None, "request {id} ends once");
    }

    fn waiting(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.tickets.len()).filter(|id| self.ends[*id].is_none())
    }

    fn arrive(&mut self, now: u64) {
        let id = self.tickets.len();
        let arrival = self.scene.arrivals[id].clone();
        let after = |ticks: Option<u64>| ticks.map(|ticks| self.at(now + ticks));
        let terms = Terms {
            level: arrival.level,
            max_queue_size: self.scene.level_bound,
            reject_at: after(arrival.reject),
            delay_at: after(arrival.delay),
        };
        let (signature, arrived) = (Signature::numbered(arrival.signature), self.at(now));
        let candidate = Candidate { signature, rows: arrival.rows, arrived, terms, payload: id };
        let same_level = self.waiting().filter(|id| self.scene.arrivals[*id].level == arrival.level).count();
        let waiting = self.waiting().count();
        let full = waiting >= self.scene.bound || self.scene.level_bound.is_some_and(|max| same_level >= max as usize);
        let pushed = self.batcher.push(candidate, self.scene.bound);
        assert_eq!(pushed.is_err(), full, "{pushed:?}");
        self.arrived.push(now);
        self.tickets.push(pushed.ok());
        if full {
            self.end(id, End::Refused);
        }
    }

    fn cancel(&mut self, now: u64) {
        for id in 0..self.tickets.len() {
            let due = self.scene.arrivals[id].cancel.is_some_and(|after| self.arrived[id] + after <= now);
            let Some(ticket) = self.tickets[id].filter(|_| due) else { continue };
            let removed = self.batcher.remove(ticket);
            assert_eq!(removed.is_some(), self.ends[id].is_none(), "it is there as long as it has not ended");
            if removed.is_some() {
                self.end(id, End::Cancelled);
            }
        }
    }

    fn decide(&mut self, now: u64) {
        while let Some(instance) = self.busy.iter().position(|until| *until <= now) {
            let decision = self.batcher.next(self.at(now));
            for id in decision.expired {
                assert!(self.rejects(id) <= now, "request {id} had time left");
                self.end(id, End::Expired);
            }
            match decision.next {
                Next::Run(batch) => {
                    self.check_batch(&batch, now);
                    self.busy[instance] = now + self.scene.durations[self.batches % self.scene.durations.len()];
                    self.batches += 1;
                }
                Next::Wait(until) => {
                    self.check_wait(until, now);
                    return;
                }
                Next::Idle => {
                    assert_eq!(self.waiting().count(), 0);
                    return;
                }
            }
        }
    }

    fn rejects(&self, id: usize) -> u64 {
        self.scene.arrivals[id].reject.map_or(u64::MAX, |after| self.arrived[id] + after)
    }

    /// Where a request stands in the order of service.
    fn place(&self, id: usize, now: u64) -> (u64, bool, usize) {
        let arrival = &self.scene.arrivals[id];
        (arrival.level, arrival.delay.is_some_and(|after| self.arrived[id] + after <= now), id)
    }

    fn due(&self, id: usize) -> u64 {
        self.arrived[id] + u64::try_from(self.scene.rules.delay.as_millis()).expect("small")
    }

    fn check_batch(&mut self, batch: &[usize], now: u64) {
        for id in batch {
            assert!(self.rejects(*id) > now, "request {id} is kept past its deadline");
            self.end(*id, End::Ran);
            self.order.push(*id);
        }
        let rules = self.scene.rules.clone();
        let of = |id: &usize| &self.scene.arrivals[*id];
        let rows: u32 = batch.iter().map(|id| of(id).rows).sum();
        assert!(!batch.is_empty() && rows <= rules.max_rows, "{rows} rows");
        let signature = of(&batch[0]).signature;
        assert!(batch.iter().all(|id| of(id).signature == signature), "shapes are not mixed");
        let places: Vec<_> = batch.iter().map(|id| self.place(*id, now)).collect();
        assert!(places.is_sorted());
        let left: Vec<usize> = self.waiting().collect();
        for id in left.iter().filter(|id| of(id).signature == signature) {
            assert!(self.place(*id, now) > places[places.len() - 1], "request {id} is overtaken");
        }
        let wanted = rows >= rules.enough() || rules.preferred.contains(&rows);
        let late = batch.iter().any(|id| self.due(*id) <= now);
        assert!(wanted || late || !left.is_empty(), "{rows} rows run too early");
    }

    fn check_wait(&self, until: Option<Instant>, now: u64) {
        let first = self.waiting().map(|id| self.due(id)).min().expect("somebody waits");
        assert!(first > now, "an instance is free, and somebody has waited for longer than the delay");
        let until = until.expect("the delay is short");
        assert!(until > self.at(now) && (until <= self.at(first) || self.scene.rules.in_order));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn whatever_comes_the_batcher_keeps_its_promises(scene in scenes()) {
        Simulation::new(scene).run();
    }
}

/// Pushes requests of so many rows that came at the same time, and returns the batches that run at once.
fn batches(preferred: &[u32], delay: u64, rows: &[u32]) -> Vec<Vec<u32>> {
    let rules = Rules {
        max_rows: 8,
        preferred: preferred.to_vec(),
        delay: Duration::from_millis(delay),
        adaptive: false,
        in_order: false,
    };
    let (mut batcher, now) = (Batcher::new(rules), Instant::now());
    for rows in rows {
        let candidate = Candidate {
            signature: Signature::default(),
            rows: *rows,
            arrived: now,
            terms: Terms::default(),
            payload: *rows,
        };
        batcher.push(candidate, 100).expect("there is room");
    }
    std::iter::from_fn(|| match batcher.next(now).next {
        Next::Run(batch) => Some(batch),
        Next::Wait(_) | Next::Idle => None,
    })
    .collect()
}

#[test]
fn batches_have_a_preferred_size_or_are_full_or_late() {
    type Case<'a> = (&'a [u32], u64, &'a [u32], &'a [&'a [u32]]);
    let cases: [Case<'_>; 9] = [
        (&[], 0, &[1, 1, 1], &[&[1, 1, 1]]),
        (&[], 5, &[1, 1, 1], &[]),
        (&[], 5, &[4, 4, 1], &[&[4, 4]]),
        (&[], 5, &[4, 3, 2], &[&[4, 3]]),
        (&[2, 4], 5, &[1, 1, 1], &[&[1, 1]]),
        (&[2, 4], 5, &[1, 1, 1, 1, 1], &[&[1, 1, 1, 1]]),
        (&[4], 5, &[3, 3, 3], &[&[3, 3]]),
        (&[2, 8], 5, &[1, 1, 1, 7], &[&[1, 1], &[1, 7]]),
        (&[2], 0, &[1, 1, 1], &[&[1, 1], &[1]]),
    ];
    for (preferred, delay, rows, expected) in cases {
        assert_eq!(batches(preferred, delay, rows), expected, "{preferred:?} {delay} {rows:?}");
    }
}

//! Sequences under made-up time: what must never happen, whatever comes; and the rules one by one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use inference::{CorrelationId, SequencePlace};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::decide::Next;
use super::endings::Why;
use super::rules::{Rules, Strategy as Kind};
use super::table::{Arrival, Refusal, Removed, Sequences, Serial, Ticket};
use crate::batcher;
use crate::batcher::signature::Signature;

/// A request as it comes; times in ticks of a millisecond.
#[derive(Clone, Debug)]
struct Coming {
    gap: u64,
    id: u64,
    starts: bool,
    ends: bool,
    signature: u32,
    deadline: Option<u64>,
    cancel: Option<u64>,
}

#[derive(Clone, Debug)]
struct Scene {
    rules: Rules,
    max_rows: usize,
    instances: usize,
    /// How long the executions take, and whether they succeed, over and over.
    executions: Vec<(u64, bool)>,
    bound: usize,
    /// When which instance crashes, with the batch that it runs then.
    crashes: Vec<(u64, usize)>,
    coming: Vec<Coming>,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let coming = (0u64..4, 1u64..6, 0u32..3, 0u32..4, 0u32..2, option::of(1u64..12), option::of(0u64..9));
    let coming = coming.prop_map(|(gap, id, start, end, signature, deadline, cancel)| Coming {
        gap,
        id,
        starts: start == 0,
        ends: end == 0,
        signature,
        deadline,
        cancel,
    });
    let rules = (any::<bool>(), 1u32..5, 1usize..5, vec(1u32..5, 0..2), 0u64..6, any::<bool>(), 3u64..15);
    let rest = (1usize..4, vec((1u64..7, any::<bool>()), 1..4), 0usize..12, vec((0u64..60, 0usize..4), 0..2));
    (rules, rest, vec(coming, 1..50)).prop_map(|(rules, rest, coming)| {
        let (direct, max_rows, slots, mut preferred, delay, in_order, max_idle) = rules;
        let (instances, executions, bound, crashes) = rest;
        preferred.retain(|size| *size <= max_rows);
        let delay = Duration::from_millis(delay);
        let (slots, strategy) = match direct {
            true => (max_rows as usize, Kind::Direct { enough: slots.min(max_rows as usize), delay }),
            false => (slots, Kind::Oldest(batcher::Rules { max_rows, preferred, delay, adaptive: false, in_order })),
        };
        let rules = Rules { slots, max_idle: Duration::from_millis(max_idle), strategy };
        Scene { rules, max_rows: max_rows as usize, instances, executions, bound, crashes, coming }
    })
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ran,
    Expired,
    Cancelled,
    Orphaned,
    Stranded,
    Refused,
}

/// A sequence's state is the list of its requests that have run.
type History = Vec<usize>;

/// What runs on an instance: until when, and the states that come of it.
type Running = (u64, Vec<(Serial, Option<History>)>);

struct Simulation {
    scene: Scene,
    start: Instant,
    table: Sequences<usize, History>,
    arrived: Vec<u64>,
    tickets: Vec<Option<Ticket>>,
    ends: Vec<Option<End>>,
    running: Vec<Option<Running>>,
    dead: Vec<bool>,
    /// The requests of each sequence that ran, and in the strategy "direct" where.
    histories: BTreeMap<Serial, (History, Vec<(usize, usize)>)>,
    batches: usize,
}

impl Simulation {
    fn new(scene: Scene) -> Self {
        let (instances, count) = (scene.instances, scene.coming.len());
        Simulation {
            start: Instant::now(),
            table: Sequences::new(scene.rules.clone(), instances),
            arrived: Vec::new(),
            tickets: Vec::new(),
            ends: vec![None; count],
            running: (0..instances).map(|_| None).collect(),
            dead: vec![false; instances],
            histories: BTreeMap::new(),
            batches: 0,
            scene,
        }
    }

    fn run(mut self) {
        let mut due: Vec<u64> = Vec::new();
        for coming in &self.scene.coming {
            due.push(due.last().unwrap_or(&0) + coming.gap);
        }
        let mut now = 0;
        while now < 3_000 && (self.tickets.len() < due.len() || self.table.is_live()) {
            self.complete(now);
            self.table.end_idle(self.at(now));
            while due.get(self.tickets.len()).is_some_and(|due| *due <= now) {
                self.arrive(now);
            }
            self.cancel(now);
            (0..self.scene.instances).for_each(|instance| self.decide(instance, now));
            self.check_seats();
            now += 1;
        }
        assert!(!self.table.is_live(), "every sequence ends, be it that it is idle");
        assert!(self.ends.iter().all(Option::is_some), "nobody is lost: {:?}", self.ends);
        for (history, places) in self.histories.values() {
            assert!(history.is_sorted(), "in order: {history:?}");
            assert!(self.scene.coming[history[0]].starts, "it begins with its start: {history:?}");
            assert!(places.iter().all(|place| *place == places[0]), "it stays where it is: {places:?}");
        }
    }

    fn at(&self, tick: u64) -> Instant {
        self.start + Duration::from_millis(tick)
    }

    fn end(&mut self, request: usize, end: End) {
        assert_eq!(self.ends[request].replace(end), None, "request {request} ends once");
    }

    fn removed(&mut self, removed: Removed<usize>, end: End) {
        removed.request.into_iter().for_each(|request| self.end(request, end));
        removed.orphans.into_iter().for_each(|request| self.end(request, End::Orphaned));
    }

    fn arrive(&mut self, now: u64) {
        let request = self.tickets.len();
        let Coming { id, starts, ends, deadline, .. } = self.scene.coming[request];
        let place = SequencePlace { id: CorrelationId::Number(id), starts, ends };
        let deadline = deadline.map(|deadline| self.at(now + deadline));
        let was_open = self.table.is_open(&place.id);
        let pushed =
            self.table.push(Arrival { place, arrived: self.at(now), deadline, payload: request }, self.scene.bound);
        match pushed {
            Err(Refusal::NotStarted(_)) => assert!(!starts && !was_open),
            Err(Refusal::NoInstance) => assert!(self.dead.iter().all(|dead| *dead)),
            Err(Refusal::Full(bound)) => assert_eq!(bound, self.scene.bound),
            Ok(_) => assert!(starts || was_open),
        }
        if pushed.is_err() {
            self.end(request, End::Refused);
        }
        self.arrived.push(now);
        self.tickets.push(pushed.ok());
    }

    fn cancel(&mut self, now: u64) {
        for request in 0..self.tickets.len() {
            if self.scene.coming[request].cancel.is_some_and(|after| self.arrived[request] + after == now)
                && let Some(ticket) = self.tickets[request]
            {
                let removed = self.table.remove(ticket, self.at(now));
                assert_eq!(removed.request.is_some(), self.ends[request].is_none(), "it waits unless it has ended");
                self.removed(removed, End::Cancelled);
            }
        }
    }

    fn decide(&mut self, instance: usize, now: u64) {
        let at = self.at(now);
        let coming = self.scene.coming.clone();
        let sign = |request: &usize, _: Option<&History>| Signature::numbered(coming[*request].signature);
        let decision = self.table.next(instance, at, &sign);
        for removed in decision.expired {
            let request = removed.request.expect("it was late");
            let deadline = coming[request].deadline.expect("it had one");
            assert!(self.arrived[request] + deadline <= now);
            self.removed(removed, End::Expired);
        }
        match decision.next {
            Next::Idle => assert!(!self.table.has_work(instance)),
            Next::Wait(Some(at)) => assert!(at > self.at(now)),
            Next::Wait(None) => panic!("there is a time for all that waits"),
            Next::Run(rows) => {
                assert!(self.running[instance].is_none() && !self.dead[instance], "one batch at a time");
                assert!(rows.len() <= self.scene.max_rows && rows.iter().any(Option::is_some));
                let (duration, succeeds) = self.scene.executions[self.batches % self.scene.executions.len()];
                self.batches += 1;
                let mut ran = Vec::new();
                let signature = rows.iter().flatten().map(|row| coming[row.payload].signature).next();
                for (slot, row) in rows.into_iter().enumerate() {
                    let Some(row) = row else { continue };
                    let request = &coming[row.payload];
                    assert_eq!(Some(request.signature), signature, "they fit together");
                    assert!(request.deadline.is_none_or(|deadline| now < self.arrived[row.payload] + deadline));
                    assert!(!request.starts || row.state.is_none(), "a start knows nothing of what was before");
                    assert!(ran.iter().all(|(serial, _)| *serial != row.serial), "one of each sequence");
                    let (history, places) = self.histories.entry(row.serial).or_default();
                    history.push(row.payload);
                    if matches!(self.scene.rules.strategy, Kind::Direct { .. }) {
                        places.push((instance, slot));
                    }
                    let mut state = row.state.unwrap_or_default();
                    state.push(row.payload);
                    self.end(row.payload, End::Ran);
                    ran.push((row.serial, succeeds.then_some(state)));
                }
                self.running[instance] = Some((now + duration, ran));
            }
        }
    }

    fn complete(&mut self, now: u64) {
        for instance in 0..self.scene.instances {
            let Some((until, ran)) = self.running[instance].take() else { continue };
            let crashes = self.scene.crashes.iter().any(|(at, which)| *which == instance && *at <= now);
            if crashes {
                self.dead[instance] = true;
                let stranded = self.table.lose(instance);
                stranded.into_iter().for_each(|(_, request)| self.end(request, End::Stranded));
                self.table.complete(instance, ran, self.at(now));
            } else if until <= now {
                self.table.complete(instance, ran, self.at(now));
            } else {
                self.running[instance] = Some((until, ran));
            }
        }
    }

    /// No two sequences have the same place, and none waits for a place while one is free.
    fn check_seats(&self) {
        let mut taken = Vec::new();
        for (serial, sequence) in &self.table.sequences {
            let Some(seat) = sequence.seat else { continue };
            assert!(!taken.contains(&(seat.instance, seat.slot)), "{seat:?} is taken");
            taken.push((seat.instance, seat.slot));
            assert_eq!(self.table.instances[seat.instance].slots[seat.slot], Some(*serial));
        }
        let alive = self.dead.iter().filter(|dead| !**dead).count();
        if self.table.sequences.values().any(|sequence| sequence.seat.is_none()) {
            assert_eq!(taken.len(), alive * self.scene.rules.slots, "a sequence waits beside a free slot");
        }
        let waiting: usize = self.table.sequences.values().map(|sequence| sequence.waiting.len()).sum();
        let live = self.scene.instances * self.scene.rules.slots;
        assert!(waiting <= self.scene.bound + live, "{waiting} wait");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn every_request_ends_once_in_order_in_time_and_in_its_place(scene in scenes()) {
        Simulation::new(scene).run();
    }
}

fn rules(slots: usize, strategy: Kind) -> Rules {
    Rules { slots, max_idle: Duration::from_millis(10), strategy }
}

fn arrival(now: Instant, id: u64, starts: bool, ends: bool, payload: usize) -> Arrival<usize> {
    let place = SequencePlace { id: CorrelationId::Number(id), starts, ends };
    Arrival { place, arrived: now, deadline: None, payload }
}

/// The requests of the batch that an instance begins; -1 for an empty row.
fn batch(table: &mut Sequences<usize, History>, instance: usize, now: Instant) -> Vec<i64> {
    match table.next(instance, now, &|_, _| Signature::numbered(0)).next {
        Next::Run(rows) => rows.into_iter().map(|row| row.map_or(-1, |row| row.payload as i64)).collect(),
        _ => Vec::new(),
    }
}

fn serials(table: &Sequences<usize, History>) -> Vec<(Serial, Option<History>)> {
    let running = table.sequences.iter().filter(|(_, sequence)| sequence.running);
    running.map(|(serial, _)| (*serial, None)).collect()
}

#[test]
fn a_sequence_keeps_its_row_and_rows_without_a_request_are_not_ready() {
    let now = Instant::now();
    let mut table = Sequences::new(rules(4, Kind::Direct { enough: 1, delay: Duration::ZERO }), 1);
    for id in 1..=3 {
        table.push(arrival(now, id, true, id == 1, id as usize), 9).expect("started");
    }
    assert_eq!(batch(&mut table, 0, now), [1, 2, 3], "up to the last row that is taken");
    table.complete(0, serials(&table), now);
    table.push(arrival(now, 3, false, false, 30), 9).expect("known");
    table.push(arrival(now, 2, false, true, 20), 9).expect("known");
    assert_eq!(batch(&mut table, 0, now), [-1, 20, 30]);
    table.complete(0, serials(&table), now);
    table.push(arrival(now, 3, false, false, 31), 9).expect("known");
    table.push(arrival(now, 4, true, false, 4), 9).expect("started");
    assert_eq!(batch(&mut table, 0, now), [4, -1, 31], "the row of the first was free");
}

#[test]
fn a_batch_waits_for_enough_rows_or_for_the_delay() {
    let (now, ms) = (Instant::now(), Duration::from_millis);
    let mut table = Sequences::new(rules(4, Kind::Direct { enough: 2, delay: ms(5) }), 1);
    table.push(arrival(now, 1, true, false, 1), 9).expect("started");
    assert!(batch(&mut table, 0, now + ms(4)).is_empty());
    assert_eq!(batch(&mut table, 0, now + ms(5)), [1]);
    table.complete(0, serials(&table), now + ms(5));
    table.push(arrival(now + ms(6), 1, false, false, 10), 9).expect("known");
    assert!(batch(&mut table, 0, now + ms(7)).is_empty());
    table.push(arrival(now + ms(7), 2, true, false, 2), 9).expect("started");
    assert_eq!(batch(&mut table, 0, now + ms(7)), [10, 2]);
}

#[test]
fn sequences_spread_over_instances_and_wait_in_order_when_there_is_no_slot() {
    let now = Instant::now();
    let mut table = Sequences::new(rules(1, Kind::Direct { enough: 1, delay: Duration::ZERO }), 2);
    for id in 1..=4 {
        table.push(arrival(now, id, true, id < 3, id as usize), 9).expect("started");
    }
    table.push(arrival(now, 3, false, true, 30), 9).expect("known, though it has no slot");
    assert_eq!((batch(&mut table, 0, now), batch(&mut table, 1, now)), (vec![1], vec![2]));
    table.complete(1, vec![(2, None)], now);
    assert_eq!((batch(&mut table, 1, now), batch(&mut table, 0, now)), (vec![3], vec![]));
    table.complete(0, vec![(1, None)], now);
    table.complete(1, vec![(3, None)], now);
    assert_eq!((batch(&mut table, 1, now), batch(&mut table, 0, now)), (vec![30], vec![4]));
}

#[test]
fn the_first_requests_of_sequences_run_together_and_no_two_of_one() {
    let now = Instant::now();
    let oldest =
        batcher::Rules { max_rows: 2, preferred: Vec::new(), delay: Duration::ZERO, adaptive: false, in_order: false };
    let mut table = Sequences::new(rules(3, Kind::Oldest(oldest)), 1);
    for (id, starts, payload) in [(1, true, 1), (1, false, 10), (2, true, 2), (3, true, 3), (4, true, 4)] {
        table.push(arrival(now, id, starts, id == 2, payload), 9).expect("welcome");
    }
    assert_eq!(batch(&mut table, 0, now), [1, 2]);
    table.complete(0, serials(&table), now);
    assert_eq!(batch(&mut table, 0, now), [3, 10], "the fourth sequence is a candidate from now on");
    table.complete(0, serials(&table), now);
    assert_eq!(batch(&mut table, 0, now), [4]);
}

#[test]
fn a_sequence_that_ended_before_its_time_is_told_why() {
    let (now, ms) = (Instant::now(), Duration::from_millis);
    let mut table: Sequences<usize, History> =
        Sequences::new(rules(1, Kind::Direct { enough: 1, delay: Duration::ZERO }), 2);
    let next = |table: &mut Sequences<usize, History>, id| table.push(arrival(now, id, false, false, 0), 9);
    assert_eq!(next(&mut table, 1), Err(Refusal::NotStarted(None)));
    table.push(arrival(now, 1, true, false, 1), 9).expect("started");
    assert_eq!(batch(&mut table, 0, now), [1]);
    table.complete(0, vec![(1, None)], now);
    assert_eq!(table.next_idle_end(), Some(now + ms(10)));
    table.end_idle(now + ms(9));
    assert!(table.is_live());
    table.end_idle(now + ms(10));
    assert_eq!(next(&mut table, 1), Err(Refusal::NotStarted(Some(Why::Idle))));

    let ticket = table.push(arrival(now, 2, true, false, 2), 9).expect("started");
    table.push(arrival(now, 2, false, false, 20), 9).expect("known");
    assert_eq!(table.remove(ticket, now), Removed { request: Some(2), orphans: vec![20] });
    assert_eq!(next(&mut table, 2), Err(Refusal::NotStarted(Some(Why::StartLost))));

    table.push(arrival(now, 3, true, false, 3), 9).expect("started");
    assert_eq!(table.lose(0), [(CorrelationId::Number(3), 3)]);
    assert_eq!(next(&mut table, 3), Err(Refusal::NotStarted(Some(Why::Crashed))));
    table.push(arrival(now, 3, true, false, 4), 9).expect("the other instance has it");
    table.push(arrival(now, 5, true, false, 5), 9).expect("waits for a slot");
    assert_eq!(table.lose(1).len(), 2, "and those that waited for a slot");
    assert_eq!(table.push(arrival(now, 6, true, false, 6), 9), Err(Refusal::NoInstance));
    assert!(!table.is_live());
}

#[test]
fn only_what_must_wait_is_bounded() {
    let now = Instant::now();
    let mut table = Sequences::new(rules(1, Kind::Direct { enough: 1, delay: Duration::ZERO }), 1);
    table.push(arrival(now, 1, true, false, 1), 0).expect("it begins at once");
    assert_eq!(table.push(arrival(now, 2, true, false, 2), 0), Err(Refusal::Full(0)));
    assert_eq!(batch(&mut table, 0, now), [1]);
    assert_eq!(table.push(arrival(now, 1, false, false, 10), 0), Err(Refusal::Full(0)));
    table.complete(0, vec![(1, None)], now);
    table.push(arrival(now, 1, false, false, 11), 0).expect("it begins at once");
}

//! Whatever clients do, under paused time: nobody is lost, answered out of order, given another's state, or kept too long.

use std::sync::Arc;
use std::time::Duration;

use inference::{ErrorKind, InferenceService, SequenceStrategy};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use scheduler::SchedulerConfig;
use tokio::time::{Instant, sleep, timeout};

use crate::fake::{append, model, ms, request, spec, y};

/// What a client does next; times in milliseconds.
#[derive(Clone, Debug)]
struct Send {
    after: u64,
    starts: bool,
    ends: bool,
    /// It goes away.
    gives_up: Option<u64>,
}

#[derive(Clone, Debug)]
struct Scene {
    strategy: SequenceStrategy,
    instances: usize,
    timeout: u64,
    queue: usize,
    /// Each client has a sequence of its own, and sends without waiting for answers.
    clients: Vec<Vec<Send>>,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let send = (0u64..30, 0u32..4, 0u32..4, option::weighted(0.2, 0u64..20));
    let send = send.prop_map(|(after, start, end, gives_up)| {
        // Now and then longer than a sequence may be idle.
        let after = if after == 29 { 1500 } else { after };
        Send { after, starts: start == 0, ends: end == 0, gives_up }
    });
    let strategy = (any::<bool>(), 0.0f32..1.0, 1u32..6, 0u64..15, any::<bool>(), vec(1u32..5, 0..2));
    let strategy =
        strategy.prop_map(|(direct, utilization, candidates, delay, preserve_ordering, preferred)| match direct {
            true => SequenceStrategy::Direct { max_queue_delay: ms(delay), minimum_slot_utilization: utilization },
            false => SequenceStrategy::Oldest {
                max_candidate_sequences: candidates,
                preferred_batch_sizes: preferred,
                max_queue_delay: ms(delay),
                preserve_ordering,
            },
        });
    (strategy, 1usize..4, 1u64..40, 0usize..20, vec(vec(send, 1..12), 1..8)).prop_map(
        |(strategy, instances, timeout, queue, clients)| Scene { strategy, instances, timeout, queue, clients },
    )
}

/// What a client learns of a request that it did not give up.
#[derive(Debug)]
struct Outcome {
    x: i32,
    starts: bool,
    listed: Option<Vec<i32>>,
}

async fn play(scene: Scene) {
    let config = SchedulerConfig {
        max_queue_size: scene.queue,
        infer_timeout: ms(scene.timeout),
        adaptive_batching: false,
        stream: scheduler::StreamConfig::DEFAULT,
    };
    let (model, seen) = model(spec(scene.strategy), config, scene.instances, |request| Ok(append(request)));
    let mut clients = Vec::new();
    for (client, sends) in scene.clients.into_iter().enumerate() {
        let model = model.clone();
        let client = i32::try_from(client).expect("few");
        let most = ms(scene.timeout);
        clients.push(tokio::spawn(async move {
            let mut answers = Vec::new();
            for (turn, send) in (0..).zip(sends) {
                sleep(ms(send.after)).await;
                let marks = [if send.starts { "s" } else { "" }, if send.ends { "e" } else { "" }].concat();
                let x = client * 1000 + turn;
                let (model, request) = (model.clone(), request(i64::from(client) + 1, &marks, x));
                answers.push(tokio::spawn(async move {
                    let begin = Instant::now();
                    let patience = send.gives_up.map_or(Duration::MAX, ms);
                    let answer = timeout(patience, model.infer(request)).await.ok()?;
                    assert!(begin.elapsed() <= most + ms(1), "kept past its deadline");
                    let allowed = [ErrorKind::InvalidArgument, ErrorKind::Unavailable, ErrorKind::Overloaded];
                    let listed = match answer {
                        Ok(response) => Some(y(&response)),
                        Err(error) if allowed.contains(&error.kind()) => None,
                        Err(error) => panic!("{error:?}"),
                    };
                    Some(Outcome { x, starts: send.starts, listed })
                }));
            }
            let mut outcomes = Vec::new();
            for answer in answers {
                outcomes.extend(answer.await.expect("no panic"));
            }
            outcomes
        }));
    }
    for (client, outcomes) in (0..).zip(clients) {
        check_client(client, &outcomes.await.expect("no panic"));
    }
    assert!(seen.lock().iter().all(|(_, rows)| rows.len() <= 4 && rows.iter().any(|row| row.ready)));
    let mut ran: Vec<i32> =
        seen.lock().iter().flat_map(|(_, rows)| rows).filter(|row| row.ready).map(|row| row.x).collect();
    let count = ran.len();
    ran.sort_unstable();
    ran.dedup();
    assert_eq!(ran.len(), count, "nothing runs twice");
    sleep(ms(1100)).await;
    assert!(!model.is_busy(), "every sequence ends");
    assert_eq!(Arc::strong_count(&model), 1);
}

/// Each answer lists what its sequence was given: in order, its own alone, itself last, and all that was answered before.
fn check_client(client: i32, outcomes: &[Outcome]) {
    let mut before: Option<&[i32]> = None;
    for Outcome { x, starts, listed } in outcomes {
        let Some(listed) = listed else { continue };
        assert_eq!(listed.last(), Some(x), "{outcomes:?}");
        assert!(listed.is_sorted() && listed.iter().all(|x| x / 1000 == client), "{outcomes:?}");
        if *starts {
            assert_eq!(listed.len(), 1, "a start forgets: {outcomes:?}");
        } else if let Some(before) = before {
            // Or it belongs to a sequence whose start was given up by its client after it ran.
            assert!(listed.starts_with(before) || listed[0] > before[0], "{outcomes:?}");
        }
        before = Some(listed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn every_client_gets_what_its_own_sequence_makes(scene in scenes()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(play(scene));
    }
}

/// In real time on several threads: the same, with a model that takes its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_every_sequence_keeps_its_order() {
    let strategies = [
        SequenceStrategy::Direct { max_queue_delay: Duration::from_micros(200), minimum_slot_utilization: 0.5 },
        SequenceStrategy::Oldest {
            max_candidate_sequences: 8,
            preferred_batch_sizes: vec![2],
            max_queue_delay: Duration::from_micros(200),
            preserve_ordering: true,
        },
    ];
    for strategy in strategies {
        let config = SchedulerConfig {
            max_queue_size: 1000,
            infer_timeout: Duration::from_secs(60),
            adaptive_batching: false,
            stream: scheduler::StreamConfig::DEFAULT,
        };
        let (model, _) = model(spec(strategy), config, 2, |request| {
            std::thread::sleep(Duration::from_micros(100));
            Ok(append(request))
        });
        let client = |client: i32| {
            let model = model.clone();
            tokio::spawn(async move {
                for turn in 0..10 {
                    for step in 0..10 {
                        let marks = ["s", "", "", "", "", "", "", "", "", "e"][step as usize];
                        let answer = model.infer(request(i64::from(client) + 1, marks, step)).await.expect("runs");
                        assert_eq!(y(&answer), (0..=step).collect::<Vec<_>>(), "client {client}, turn {turn}");
                    }
                }
            })
        };
        for client in (0..16).map(client).collect::<Vec<_>>() {
            client.await.expect("no panic");
        }
        assert!(!model.is_busy());
    }
}

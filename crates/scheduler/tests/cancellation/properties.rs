//! Whatever clients do, under paused time: every run ends, none is interrupted while somebody waits for it, every instance is
//! free in the end, and whoever stays is answered.

use std::sync::Arc;
use std::time::Duration;

use inference::{DynamicBatching, Error, ErrorKind, InferResponse, InferenceService, ModelSpec, Result};
use parking_lot::Mutex;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use scheduler::{ScheduledModel, SchedulerConfig};
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep, timeout};

use crate::fake::{CONFIG, ENDLESS, Run, Stage, request, soon, spec, telling, y};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A request; times in milliseconds.
#[derive(Clone, Debug)]
struct Send {
    /// Since the one before.
    after: u64,
    /// It ends only when it is cancelled, and so does every batch that holds it.
    endless: bool,
    /// Its client goes away.
    gives_up: Option<u64>,
}

#[derive(Clone, Debug)]
struct Scene {
    /// Whether requests share batches.
    batches: bool,
    instances: usize,
    infer_timeout: u64,
    sends: Vec<Send>,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let send = (0u64..4, prop::bool::weighted(0.4), option::weighted(0.5, 0u64..25));
    let send = send.prop_map(|(after, endless, gives_up)| Send { after, endless, gives_up });
    (any::<bool>(), 1usize..4, 5u64..40, vec(send, 1..20))
        .prop_map(|(batches, instances, infer_timeout, sends)| Scene { batches, instances, infer_timeout, sends })
}

/// What is known of the clients.
#[derive(Default)]
struct Clients {
    now: u64,
    /// When each arrived.
    arrived: Vec<u64>,
    gone: Vec<bool>,
    /// Runs that were interrupted although somebody waited.
    wronged: Vec<Run>,
}

impl Clients {
    fn waits(&self, id: usize, infer_timeout: u64) -> bool {
        !self.gone[id] && self.now < self.arrived[id] + infer_timeout
    }
}

/// Request `id`: its first row says which one it is, its second one whether it is endless.
fn rows(id: usize, send: &Send) -> Vec<i32> {
    let id = i32::try_from(id).expect("few");
    if send.endless { vec![id, ENDLESS] } else { vec![id, id] }
}

fn ids(run: &Run) -> Vec<usize> {
    run.values.chunks(2).map(|rows| usize::try_from(rows[0]).expect("positive")).collect()
}

/// What a client is told; nothing when it goes away first.
type Told = Option<Result<InferResponse>>;

fn ask(model: Arc<ScheduledModel>, clients: Arc<Mutex<Clients>>, id: usize, send: Send) -> JoinHandle<(Told, u64)> {
    {
        let mut clients = clients.lock();
        let now = clients.now;
        clients.arrived[id] = now;
    }
    tokio::spawn(async move {
        let began = tokio::time::Instant::now();
        let mut answer = model.infer(request(&rows(id, &send)));
        let told = timeout(send.gives_up.map_or(Duration::MAX, ms), &mut answer).await.ok();
        clients.lock().gone[id] = true;
        drop(answer);
        (told, u64::try_from(began.elapsed().as_millis()).expect("short"))
    })
}

/// Lets a millisecond pass: every timer that is due fires, every run that is to end ends.
async fn tick(clients: &Mutex<Clients>, stage: &Stage) {
    clients.lock().now += 1;
    advance(ms(1)).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    stage.until(|runs| runs.iter().all(|run| run.over || run.goes_on())).await;
    std::thread::sleep(Duration::from_micros(20));
}

async fn play(scene: Scene) {
    let count = scene.sends.len();
    let clients = Clients { arrived: vec![0; count], gone: vec![false; count], ..Clients::default() };
    let clients = Arc::new(Mutex::new(clients));
    let (told, limit) = (clients.clone(), scene.infer_timeout);
    let note = move |run: &Run| {
        let mut clients = told.lock();
        if ids(run).iter().any(|id| clients.waits(*id, limit)) {
            clients.wronged.push(run.clone());
        }
    };
    let dynamic_batching = scene.batches.then(|| DynamicBatching { max_queue_delay: ms(2), ..Default::default() });
    let config = SchedulerConfig { infer_timeout: ms(scene.infer_timeout), ..CONFIG };
    let (model, stage) = telling(ModelSpec { dynamic_batching, ..spec() }, config, scene.instances, note);
    let asked = tokio::spawn({
        let (model, clients, sends) = (model.clone(), clients.clone(), scene.sends.clone());
        async move {
            let mut asked = Vec::new();
            for (id, send) in sends.into_iter().enumerate() {
                sleep(ms(send.after)).await;
                asked.push(ask(model.clone(), clients.clone(), id, send));
            }
            futures::future::join_all(asked).await
        }
    });
    for _ in 0..500 {
        if asked.is_finished() {
            break;
        }
        tick(&clients, &stage).await;
    }
    assert!(asked.is_finished(), "somebody is lost: {:?}", stage.runs.lock());
    let told = asked.await.expect("no panic").into_iter().map(|told| told.expect("no panic"));
    stage.until(|runs| runs.iter().all(|run| run.over)).await;
    let wronged = std::mem::take(&mut clients.lock().wronged);
    assert!(wronged.is_empty(), "interrupted although somebody waited: {wronged:?}");
    check(&scene, told, &stage.runs.lock());
    // As many at once as there are instances.
    let all = futures::future::join_all((0..scene.instances).map(|_| model.infer(request(&[0, 1, 2, 3]))));
    let driven = async {
        tokio::time::advance(ms(2)).await;
        all.await
    };
    for answer in soon(driven).await {
        assert_eq!(y(&answer.expect("an instance is free")), [0, 1, 2, 3]);
    }
}

fn check(scene: &Scene, told: impl Iterator<Item = (Told, u64)>, runs: &[Run]) {
    for (id, (told, took)) in told.enumerate() {
        let send = &scene.sends[id];
        let began = runs.iter().filter(|run| ids(run).contains(&id)).count();
        assert!(began <= 1, "{id} ran {began} times: {runs:?}");
        match told {
            None => assert_eq!(Some(took), send.gives_up),
            Some(Ok(response)) => {
                assert!(!send.endless && took <= scene.infer_timeout, "{id} took {took} ms");
                assert_eq!((y(&response), began), (rows(id, send), 1));
            }
            Some(Err(error)) => check_error(scene, &error, took),
        }
    }
}

/// Nobody is told anything but that its time is over, and only when it is.
fn check_error(scene: &Scene, error: &Error, took: u64) {
    let is_late = matches!(error.kind(), ErrorKind::DeadlineExceeded | ErrorKind::Unavailable);
    assert!(is_late && took >= scene.infer_timeout, "after {took} ms: {error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn runs_end_when_nobody_waits_for_them_and_not_before(scene in scenes()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("starts").block_on(play(scene));
    }
}

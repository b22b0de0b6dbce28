//! Whatever clients do, under paused time: nobody is lost, answered twice, answered out of order where order is promised, or
//! kept past its deadline, no batch is over its bound, and nothing is left over.

use std::sync::Arc;
use std::time::Duration;

use inference::{
    DataType, DynamicBatching, Error, ErrorKind, InferRequest, InferResponse, InferenceService, NamedTensor,
    QueuePolicy, Result, Shape, Tensor, TimeoutAction,
};
use parking_lot::{Condvar, Mutex};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use scheduler::SchedulerConfig;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep, timeout};

use crate::fake::{CONFIG, assert_echoes, echo, model, ms, request, spec, values, with};

/// A request; times in milliseconds.
#[derive(Clone, Debug)]
struct Send {
    /// Since the one before.
    after: u64,
    rows: i32,
    priority: u64,
    /// In the queue, by the request's own wish.
    timeout: Option<u64>,
    /// Until its caller's deadline.
    deadline: Option<u64>,
    /// Its client goes away.
    gives_up: Option<u64>,
    /// How long the model is busy with it, and with any batch that holds it.
    takes: u64,
    /// The model refuses it, and any batch that holds it.
    fails: bool,
}

#[derive(Clone, Debug)]
struct Scene {
    batching: DynamicBatching,
    instances: usize,
    infer_timeout: u64,
    queue: usize,
    sends: Vec<Send>,
}

impl Scene {
    fn level(&self, id: usize) -> u64 {
        self.batching.level(self.sends[id].priority)
    }

    /// How long a client waits at most.
    fn limit(&self, id: usize) -> u64 {
        self.sends[id].deadline.unwrap_or(u64::MAX).min(self.infer_timeout)
    }

    /// How long a request waits in the queue at most.
    fn queue_limit(&self, id: usize) -> u64 {
        let policy = self.batching.policy(self.level(id));
        if policy.timeout_action == TimeoutAction::Delay {
            return self.limit(id);
        }
        let own = self.sends[id].timeout.filter(|_| policy.allow_timeout_override);
        let default = policy.default_timeout.map(|time| u64::try_from(time.as_millis()).expect("short"));
        [own, default, Some(self.limit(id))].into_iter().flatten().min().expect("one is there")
    }

    fn delays(&self) -> bool {
        let of_levels = self.batching.priority_queue_policy.values();
        of_levels.chain([&self.batching.default_queue_policy]).any(|p| p.timeout_action == TimeoutAction::Delay)
    }

    fn values(&self, id: usize) -> Vec<i32> {
        let first = i32::try_from(id).expect("few") * 10;
        (first..first + self.sends[id].rows).collect()
    }

    /// Its tensor holds a clone of `token` as long as it lives.
    fn request(&self, id: usize, token: &Arc<()>) -> InferRequest {
        let values = self.values(id);
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let owner = Counted(bytes, token.clone());
        let shape = Shape::from([i64::from(self.sends[id].rows), 1]);
        let x = Tensor::new(DataType::Int32, shape, bytes::Bytes::from_owner(owner)).expect("fits");
        let send = &self.sends[id];
        let mut request = InferRequest { inputs: vec![NamedTensor::new("x", x)], ..InferRequest::default() };
        request = with(request, "priority", i64::try_from(send.priority).expect("small"));
        if let Some(timeout) = send.timeout {
            request = with(request, "timeout", i64::try_from(timeout * 1000).expect("short"));
        }
        request.deadline = send.deadline.map(|deadline| (Instant::now() + ms(deadline)).into_std());
        request
    }
}

struct Counted(Vec<u8>, #[expect(dead_code, reason = "only its count matters")] Arc<()>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn sends() -> impl Strategy<Value = Vec<Send>> {
    let times = (option::weighted(0.3, 1u64..20), option::weighted(0.1, 0u64..20), option::weighted(0.15, 0u64..25));
    let rows = prop_oneof![3 => Just(1), 1 => 1i32..=4];
    let send = (0u64..6, rows, 0u64..5, times, 0u64..8, prop::bool::weighted(0.1));
    let send = send.prop_map(|(after, rows, priority, (timeout, deadline, gives_up), takes, fails)| {
        // Many come at once, and many runs are short.
        let (after, takes) = (after.saturating_sub(3), takes.saturating_sub(2));
        Send { after, rows, priority, timeout, deadline, gives_up, takes, fails }
    });
    vec(send, 1..30)
}

fn policies() -> impl Strategy<Value = QueuePolicy> {
    let sizes = option::weighted(0.2, 1u32..5);
    (prop::bool::weighted(0.7), option::of(1u64..20), any::<bool>(), sizes).prop_map(
        |(rejects, default_timeout, allow_timeout_override, max_queue_size)| QueuePolicy {
            timeout_action: if rejects { TimeoutAction::Reject } else { TimeoutAction::Delay },
            default_timeout: default_timeout.map(ms),
            allow_timeout_override,
            max_queue_size,
        },
    )
}

fn batchings() -> impl Strategy<Value = DynamicBatching> {
    (vec(1u32..=4, 0..3), 0u64..6, any::<bool>(), any::<bool>(), policies(), option::of(policies())).prop_map(
        |(preferred_batch_sizes, delay, preserve_ordering, levels, default_queue_policy, first)| DynamicBatching {
            preferred_batch_sizes,
            max_queue_delay: ms(delay),
            preserve_ordering,
            priority_levels: if levels { 3 } else { 0 },
            default_priority_level: if levels { 2 } else { 0 },
            default_queue_policy,
            priority_queue_policy: first.filter(|_| levels).map(|policy| (1, policy)).into_iter().collect(),
            ..DynamicBatching::default()
        },
    )
}

fn scenes() -> impl Strategy<Value = Scene> {
    let infer_timeouts = prop_oneof![5u64..40, Just(1000)];
    let queues = prop_oneof![0usize..8, Just(100)];
    (batchings(), 1usize..4, infer_timeouts, queues, sends()).prop_map(
        |(batching, instances, infer_timeout, queue, sends)| Scene { batching, instances, infer_timeout, queue, sends },
    )
}

/// One run of an instance; times in milliseconds of the stage's clock.
#[derive(Clone, Debug)]
struct Run {
    values: Vec<i32>,
    ended: Option<u64>,
}

/// Where instances run: in threads of their own, but in paused time, which goes on by [`Stage::tick`] alone.
struct Stage {
    scene: Scene,
    acts: Mutex<Acts>,
    ticked: Condvar,
    ended: Condvar,
}

#[derive(Default)]
struct Acts {
    now: u64,
    /// In the order in which they began.
    runs: Vec<Run>,
    /// When those end that go on.
    ends: Vec<u64>,
}

impl Stage {
    /// What an instance does.
    fn run(&self, request: &InferRequest) -> Result<InferResponse> {
        let values = values(request);
        let ids = || values.iter().map(|value| usize::try_from(*value / 10).expect("positive"));
        let mut acts = self.acts.lock();
        let index = acts.runs.len();
        let end = acts.now + ids().map(|id| self.scene.sends[id].takes).max().expect("never empty");
        acts.runs.push(Run { values: values.clone(), ended: None });
        acts.ends.push(end);
        while acts.now < end {
            self.ticked.wait(&mut acts);
        }
        let place = acts.ends.iter().position(|other| *other == end).expect("put there");
        acts.ends.swap_remove(place);
        acts.runs[index].ended = Some(acts.now);
        self.ended.notify_all();
        drop(acts);
        if ids().any(|id| self.scene.sends[id].fails) {
            return Err(Error::internal("it broke").from_model());
        }
        Ok(echo(request))
    }

    /// Lets a millisecond pass: every timer that is due fires, every run that is due ends.
    async fn tick(&self) {
        advance(ms(1)).await;
        {
            let mut acts = self.acts.lock();
            acts.now += 1;
            self.ticked.notify_all();
            while acts.ends.iter().any(|end| *end <= acts.now) {
                self.ended.wait(&mut acts);
            }
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        // Other threads take real time to begin a run and to send its answer.
        std::thread::sleep(Duration::from_micros(20));
    }
}

/// What a client knows at the end; times in milliseconds of the stage's clock.
#[derive(Debug)]
struct Outcome {
    id: usize,
    arrived: u64,
    done: u64,
    /// `None`: it went away.
    told: Option<Result<()>>,
}

impl Outcome {
    fn is_answered(&self) -> bool {
        matches!(&self.told, Some(Ok(())))
    }

    fn has_failed(&self, kind: ErrorKind) -> bool {
        matches!(&self.told, Some(Err(error)) if error.kind() == kind)
    }
}

fn ask(stage: &Arc<Stage>, model: &Arc<scheduler::ScheduledModel>, id: usize, token: &Arc<()>) -> JoinHandle<Outcome> {
    let (stage, model, token) = (stage.clone(), model.clone(), token.clone());
    tokio::spawn(async move {
        let (begin, arrived) = (Instant::now(), stage.acts.lock().now);
        let patience = stage.scene.sends[id].gives_up.map_or(Duration::MAX, ms);
        let told = timeout(patience, model.infer(stage.scene.request(id, &token))).await.ok();
        let told = told.map(|told| told.map(|response| assert_echoes(&response, &request(&stage.scene.values(id)))));
        let took = u64::try_from(begin.elapsed().as_millis()).expect("short");
        Outcome { id, arrived, done: arrived + took, told }
    })
}

async fn play(scene: Scene) {
    let (acts, ticked, ended) = Default::default();
    let stage = Arc::new(Stage { scene: scene.clone(), acts, ticked, ended });
    let config = SchedulerConfig { max_queue_size: scene.queue, infer_timeout: ms(scene.infer_timeout), ..CONFIG };
    let token = Arc::new(());
    let (actor, held) = (stage.clone(), token.clone());
    let model = model(spec(scene.batching.clone()), config, scene.instances, move |request| {
        let _held = &held;
        actor.run(request)
    });
    let clients = tokio::spawn({
        let (stage, model, token, scene) = (stage.clone(), model.clone(), token.clone(), scene.clone());
        async move {
            let mut asked = Vec::new();
            for (id, send) in scene.sends.iter().enumerate() {
                if send.after > 0 {
                    sleep(ms(send.after)).await;
                }
                asked.push(ask(&stage, &model, id, &token));
            }
            let mut outcomes = Vec::new();
            for asked in asked {
                outcomes.push(asked.await.expect("no panic"));
            }
            outcomes
        }
    });
    // The longest that all of them can take one after the other, twice, is far less.
    for _ in 0..2000 {
        if clients.is_finished() {
            break;
        }
        stage.tick().await;
    }
    assert!(clients.is_finished(), "somebody is lost: {:?}", stage.acts.lock().runs);
    let outcomes = clients.await.expect("no panic");
    assert_eq!(Arc::strong_count(&model), 1);
    drop(model);
    // What is overdue, or was given up, may still run.
    for _ in 0..2000 {
        if Arc::strong_count(&token) == 1 {
            break;
        }
        stage.tick().await;
    }
    assert_eq!(Arc::strong_count(&token), 1, "no instance and no tensor is left");
    check(&scene, &stage.acts.lock().runs, &outcomes);
}

fn check(scene: &Scene, runs: &[Run], outcomes: &[Outcome]) {
    check_batches(scene, runs);
    for outcome in outcomes {
        check_told(scene, outcome);
        check_runs(scene, runs, outcome);
    }
    if !scene.delays() {
        if scene.batching.preserve_ordering {
            check_order_of_answers(scene, outcomes);
        }
        if scene.instances == 1 {
            check_order_of_service(scene, runs, outcomes);
        }
    }
}

/// Who is in a run.
fn ids(run: &Run) -> Vec<usize> {
    let mut ids: Vec<usize> = run.values.iter().map(|value| usize::try_from(*value / 10).expect("positive")).collect();
    ids.dedup();
    ids
}

/// No batch is over its bound, and each holds whole requests.
fn check_batches(scene: &Scene, runs: &[Run]) {
    for run in runs {
        assert!(run.values.len() <= 4, "over the bound: {run:?}");
        assert_eq!(run.values, ids(run).iter().flat_map(|id| scene.values(*id)).collect::<Vec<_>>());
        assert!(run.ended.is_some(), "it runs to its end");
    }
}

/// What a client is told is right for what it asked, and it is told in time. Timers are a millisecond exact.
fn check_told(scene: &Scene, outcome: &Outcome) {
    let (id, took) = (outcome.id, outcome.done - outcome.arrived);
    let (limit, queue_limit) = (scene.limit(id), scene.queue_limit(id));
    let at = |time: u64| (time..=time + 1).contains(&took);
    let right = match &outcome.told {
        None => scene.sends[id].gives_up.is_some_and(at),
        Some(Ok(())) => took <= limit + 1 && !scene.sends[id].fails,
        Some(Err(error)) => match error.kind() {
            // A batch that failed too late to run this one alone tells it so.
            ErrorKind::Internal => took <= limit + 1 && (scene.sends[id].fails || took >= limit),
            ErrorKind::Unavailable => at(queue_limit),
            ErrorKind::DeadlineExceeded => at(limit),
            ErrorKind::Overloaded => took == 0,
            _ => false,
        },
    };
    assert!(right, "{outcome:?} of {:?}, limits {limit} and {queue_limit}", scene.sends[id]);
}

/// Nobody runs twice, unless its batch failed and it runs alone then; and not at all where it was told that it did not.
fn check_runs(scene: &Scene, runs: &[Run], outcome: &Outcome) {
    let own: Vec<Vec<usize>> = runs.iter().map(ids).filter(|ids| ids.contains(&outcome.id)).collect();
    let failed = |ids: &[usize]| ids.len() > 1 && ids.iter().any(|id| scene.sends[*id].fails);
    match &own[..] {
        [] => assert!(!outcome.is_answered() && !outcome.has_failed(ErrorKind::Internal), "{outcome:?} did not run"),
        [ids] => assert!(!(failed(ids) && outcome.is_answered()), "{outcome:?}: {own:?}"),
        [ids, alone] => assert!(failed(ids) && alone[..] == [outcome.id], "{outcome:?} ran twice: {own:?}"),
        _ => panic!("{outcome:?} ran more than twice: {own:?}"),
    }
    if outcome.has_failed(ErrorKind::Unavailable) || outcome.has_failed(ErrorKind::Overloaded) {
        assert!(own.is_empty(), "{outcome:?} ran: {own:?}");
    }
}

/// In each level, answers leave in the order in which the requests came.
fn check_order_of_answers(scene: &Scene, outcomes: &[Outcome]) {
    let ran = |outcome: &&Outcome| outcome.is_answered() || outcome.has_failed(ErrorKind::Internal);
    let mut latest = std::collections::BTreeMap::new();
    for outcome in outcomes.iter().filter(ran) {
        let latest = latest.entry(scene.level(outcome.id)).or_insert(0);
        assert!(*latest <= outcome.done, "{outcome:?} was answered before one that came earlier");
        *latest = outcome.done;
    }
}

/// Nobody overtakes a request that waited already when its batch began and was to be served first: of a lower level, or of the
/// same and earlier.
fn check_order_of_service(scene: &Scene, runs: &[Run], outcomes: &[Outcome]) {
    let mut free = 0;
    let mut served = std::collections::BTreeSet::new();
    for (index, run) in runs.iter().enumerate() {
        let batch = ids(run);
        if served.contains(&batch[0]) {
            // It runs alone because its batch failed: the same turn.
            free = run.ended.expect("ended");
            continue;
        }
        let last = batch.iter().map(|id| (scene.level(*id), *id)).max().expect("never empty");
        // It began then or later.
        let begin = batch.iter().map(|id| outcomes[*id].arrived).max().expect("never empty").max(free);
        served.extend(batch.iter().copied());
        for later in runs[index + 1..].iter().flat_map(ids).filter(|id| !served.contains(id)) {
            let overtaken = outcomes[later].arrived < begin && (scene.level(later), later) < last;
            assert!(!overtaken, "request {later} waited when {run:?} began, and runs later");
        }
        free = run.ended.expect("ended");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]
    #[test]
    fn every_client_is_told_once_in_time_and_in_order(scene in scenes()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(play(scene));
    }
}

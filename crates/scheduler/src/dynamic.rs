//! The queue of a model with dynamic batching: asks the [`Batcher`] what to run, and runs it.
//!
//! There is no thread and no lasting task. A request that arrives starts what can start at once; while requests wait that
//! could not start, one task (the driver) waits for an instance or for the delay.

mod place;
mod replies;

use std::sync::Arc;
use std::time::Duration;

use inference::{Error, InferRequest, InferResponse, ModelSpec, Result};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::audience::{Audience, Waiter};
use crate::batcher::signature::Signature;
use crate::batcher::terms::Terms;
use crate::batcher::{Batcher, Candidate, Next, Rules};
use crate::config::SchedulerConfig;
use crate::executor::{Executor, run_blocking};
use crate::instances::InstancePool;
use crate::metric::ModelMetrics;
use crate::queue::Turn;
use crate::refusal::{late, queue_full};
use crate::together::{Execution, Together, run_together};
use place::Place;
use replies::{Replies, Reply};

/// What became of a request that left the queue to run.
pub(crate) struct Answer {
    /// From its arrival to the begin of its batch.
    pub(crate) queued: Duration,
    pub(crate) result: Result<InferResponse>,
}

/// Requests of one model that wait to run together.
///
/// While `state` holds requests, its lock is held, or a driver runs (`driving`).
pub(crate) struct DynamicQueue {
    spec: Arc<ModelSpec>,
    pub(crate) instances: Arc<InstancePool>,
    executor: Executor,
    max_size: usize,
    adaptive: bool,
    metrics: Arc<ModelMetrics>,
    state: Mutex<State>,
    /// Wakes a driver that waits for the delay: the queue has changed.
    changed: Notify,
    replies: Replies,
}

struct State {
    batcher: Batcher<Waiting>,
    driving: bool,
    /// How many batches have begun.
    batches: u64,
}

/// A request that waits, and where its answer goes.
struct Waiting {
    request: InferRequest,
    rows: u32,
    arrived: Instant,
    waiter: Arc<Waiter>,
    reply: oneshot::Sender<Result<Answer>>,
}

/// A batch that begins.
struct Begun {
    number: u64,
    turn: Turn,
    batch: Vec<Waiting>,
}

/// What was done with an instance that was free.
enum Step {
    Began,
    Wait(Option<Instant>),
    Idle,
}

impl DynamicQueue {
    /// The queue of a model; `None` where its configuration does not ask for batching.
    pub(crate) fn new(
        spec: Arc<ModelSpec>,
        instances: Arc<InstancePool>,
        executor: Executor,
        config: &SchedulerConfig,
        metrics: Arc<ModelMetrics>,
    ) -> Option<Arc<Self>> {
        let rules = Rules::of(&spec, config.adaptive_batching)?;
        let (max_size, adaptive) = (config.max_queue_size, rules.adaptive);
        let replies = Replies::new(rules.in_order);
        let state = Mutex::new(State { batcher: Batcher::new(rules), driving: false, batches: 0 });
        let changed = Notify::new();
        Some(Arc::new(DynamicQueue { spec, instances, executor, max_size, adaptive, metrics, state, changed, replies }))
    }

    /// Lets a checked request with so many rows (`None`: it can share no batch) wait and run, until `deadline`.
    ///
    /// # Errors
    /// Overloaded when too many wait; Unavailable when its time in the queue is over or no instance is left;
    /// DeadlineExceeded when it runs for too long.
    pub(crate) async fn run(
        self: &Arc<Self>,
        request: InferRequest,
        rows: Option<i64>,
        arrived: Instant,
        deadline: Option<Instant>,
    ) -> Result<Answer> {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(late(&self.spec.name));
        }
        let batching = self.spec.dynamic_batching.as_ref();
        let batching = batching.expect("invariant: this queue is made only for models with dynamic batching");
        let terms = Terms::of(batching, &request, arrived.into_std(), deadline.map(Instant::into_std));
        let signature = Signature::of(&self.spec, &request);
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter::new(deadline);
        let ticket = {
            let mut state = self.state.lock();
            let max_rows = state.batcher.rules().max_rows;
            let rows = rows.and_then(|rows| u32::try_from(rows).ok()).unwrap_or(max_rows);
            let payload = Waiting { request, rows, arrived, waiter: waiter.clone(), reply };
            // While an instance is free, requests wait for each other, not for it.
            let gathering = if self.instances.has_free() { max_rows as usize } else { 0 };
            let candidate = Candidate { signature, rows, arrived: arrived.into_std(), terms, payload };
            let ticket = state.batcher.push(candidate, self.max_size.max(gathering));
            ticket.map_err(|full| queue_full(&self.spec.name, full))?
        };
        self.metrics.entered(1);
        let place = Place::new(self, ticket, waiter);
        self.begin_what_can();
        place.wait(answer, terms.reject_at.map(Instant::from_std)).await
    }

    /// Begins every batch that is due and can have an instance now; leaves the rest to the driver.
    fn begin_what_can(self: &Arc<Self>) {
        loop {
            let instance = match self.instances.try_lease() {
                Ok(Some(instance)) => instance,
                Ok(None) => break,
                Err(error) => return self.refuse_all(&error),
            };
            let Some(permit) = self.executor.try_permit(instance.index()) else { break };
            match self.step(Turn { instance, permit }) {
                Step::Began => {}
                Step::Wait(_) => break,
                Step::Idle => return,
            }
        }
        let mut state = self.state.lock();
        if state.batcher.len() == 0 {
            return;
        }
        if state.driving {
            drop(state);
            self.changed.notify_one();
        } else {
            state.driving = true;
            drop(state);
            tokio::spawn(self.clone().drive());
        }
    }

    /// Serves the queue until it is empty.
    async fn drive(self: Arc<Self>) {
        while self.has_work() {
            let turn = match self.instances.lease().await {
                Ok(instance) => {
                    let permit = self.executor.permit(instance.index()).await;
                    Turn { instance, permit }
                }
                Err(error) => {
                    self.refuse_all(&error);
                    continue;
                }
            };
            match self.step(turn) {
                Step::Began | Step::Idle => {}
                Step::Wait(Some(at)) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
                Step::Wait(None) => self.changed.notified().await,
            }
        }
    }

    /// Whether anybody waits; if not, the driver ends.
    fn has_work(&self) -> bool {
        let mut state = self.state.lock();
        state.driving = state.batcher.len() > 0;
        state.driving
    }

    /// Does what is to be done now that an instance is free.
    fn step(self: &Arc<Self>, turn: Turn) -> Step {
        let (decision, number) = {
            let mut state = self.state.lock();
            let decision = state.batcher.next(Instant::now().into_std());
            let number = state.batches;
            state.batches += u64::from(matches!(decision.next, Next::Run(_)));
            (decision, number)
        };
        self.metrics.left(decision.expired.len());
        for waiting in decision.expired {
            // Whoever is gone needs no answer, here and below.
            let _ = waiting.reply.send(Err(late(&self.spec.name)));
        }
        match decision.next {
            Next::Run(batch) => {
                self.metrics.left(batch.len());
                tokio::spawn(self.clone().execute(Begun { number, turn, batch }));
                Step::Began
            }
            Next::Wait(at) => {
                turn.permit.unused();
                Step::Wait(at.map(Instant::from_std))
            }
            Next::Idle => {
                turn.permit.unused();
                Step::Idle
            }
        }
    }

    async fn execute(self: Arc<Self>, begun: Begun) {
        let Begun { number, turn, batch } = begun;
        let Turn { instance, permit } = turn;
        let began = Instant::now();
        let deadline = batch.iter().map(|waiting| waiting.waiter.deadline()).reduce(later).flatten();
        let audience = Audience::new(batch.iter().map(|waiting| Some(waiting.waiter.clone())));
        let (mut requests, mut rows, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        for waiting in batch {
            requests.push(waiting.request);
            rows.push(waiting.rows);
            let queued = began.saturating_duration_since(waiting.arrived);
            self.metrics.waited(queued);
            replies.push((waiting.reply, queued));
        }
        let queue = self.clone();
        let work = move || {
            let ran = run_together(&queue.spec, instance, requests, &rows, &audience, true);
            let Together { results, copies, executions } = ran;
            queue.learn(&rows, &executions, began);
            queue.metrics.ran(&executions);
            queue.metrics.joined(copies);
            let replies = replies.into_iter().zip(results);
            let answer = |((reply, queued), result)| Reply { to: reply, answer: Answer { queued, result } };
            queue.replies.send(number, replies.map(answer).collect());
        };
        // Whoever waits for a batch that is overdue, or was not begun, learns it from its own clock or its channel.
        let _ = run_blocking(permit, deadline, work).await;
        self.replies.skip(number);
    }

    /// What a batch that ran at the first go, to its end, has cost.
    fn learn(&self, rows: &[u32], executions: &[Execution], began: Instant) {
        if self.adaptive && matches!(executions, [Execution { timing: Some(_), .. }]) {
            let took = began.elapsed();
            let mut state = self.state.lock();
            if let Some(pace) = state.batcher.pace() {
                pace.ran(rows.iter().sum(), took, Instant::now().into_std());
            }
        }
    }

    fn refuse_all(&self, error: &Error) {
        let waiting = self.state.lock().batcher.drain();
        self.metrics.left(waiting.len());
        for waiting in waiting {
            let _ = waiting.reply.send(Err(error.clone()));
        }
    }
}

/// The later of two deadlines, where none is the latest.
pub(crate) fn later(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.zip(b).map(|(a, b)| a.max(b))
}

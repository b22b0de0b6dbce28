//! The queue of a model whose requests form sequences: asks [`Sequences`] what to run, and runs it.
//!
//! There is no thread. A request that arrives, or a batch that ends, starts what can start at once. While requests wait for
//! a turn in the process or for others to share their batch, each instance has one task (the driver); while there are
//! sequences, one task ends those that are idle.

mod decide;
mod endings;
mod oldest;
mod place;
mod refusal;
mod rules;
mod table;
mod tensors;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use inference::{Error, ErrorKind, InferRequest, InferResponse, LoadedModel, ModelSpec, Result, SequencePlace};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::audience::{Audience, Waiter};
use crate::batcher::Full;
use crate::batcher::signature::Signature;
use crate::dynamic::{Answer, later};
use crate::executor::{ExecutionPermit, Executor, run_blocking};
use crate::instances::{InstancePool, Lease};
use crate::metric::ModelMetrics;
use crate::refusal::{late, queue_full};
use crate::together::{Together, run_together};
use decide::{Next, Row};
use place::Place;
use rules::Rules;
use table::{Arrival, Refusal, Removed, Sequences, Serial};
use tensors::{Signals, States, Tensors, without_place};

/// The sequences of one model, each on one of its instances.
///
/// While something on an instance waits that could run, the lock of `state` is held, a batch runs there, or a driver does.
pub(crate) struct SequenceQueue {
    spec: Arc<ModelSpec>,
    tensors: Tensors,
    /// One pool for each instance: a sequence stays where it is.
    instances: Vec<Arc<InstancePool>>,
    /// Wakes the drivers that wait for the delay: something has changed on their instance.
    changed: Vec<Notify>,
    executor: Executor,
    max_size: usize,
    metrics: Arc<ModelMetrics>,
    state: Mutex<State>,
}

struct State {
    table: Sequences<Waiting, States>,
    /// For each instance, whether it has a driver.
    driving: Vec<bool>,
    /// Whether there is a task that ends idle sequences.
    watching: bool,
}

/// A request that waits, and where its answer goes.
struct Waiting {
    request: InferRequest,
    signature: Signature,
    waiter: Arc<Waiter>,
    reply: oneshot::Sender<Result<Answer>>,
}

/// A batch that begins: for each row the request, if there is one.
type Rows = Vec<Option<Row<Waiting, States>>>;

/// What was done for an instance that could run something.
enum Step {
    Began,
    Wait(Option<Instant>),
    Idle,
}

impl SequenceQueue {
    /// The queue of a model; `None` where its configuration knows no sequences.
    pub(crate) fn new(
        spec: &Arc<ModelSpec>,
        loaded: &mut LoadedModel,
        executor: &Executor,
        max_size: usize,
        metrics: &Arc<ModelMetrics>,
    ) -> Option<Arc<Self>> {
        let (rules, sequences) = (Rules::of(spec)?, spec.sequence_batching.as_ref()?);
        let pool = |instance| InstancePool::new(spec.name.clone(), vec![instance]);
        let instances: Vec<_> = std::mem::take(&mut loaded.instances).into_iter().map(pool).collect();
        let count = instances.len();
        let state = State { table: Sequences::new(rules, count), driving: vec![false; count], watching: false };
        Some(Arc::new(SequenceQueue {
            tensors: Tensors::new(spec, sequences),
            spec: spec.clone(),
            changed: instances.iter().map(|_| Notify::new()).collect(),
            instances,
            executor: executor.clone(),
            max_size,
            metrics: metrics.clone(),
            state: Mutex::new(state),
        }))
    }

    /// How many instances can still be used.
    pub(crate) fn alive(&self) -> usize {
        self.instances.iter().map(|instance| instance.alive()).sum()
    }

    /// Whether there is a sequence that has not ended.
    pub(crate) fn is_live(&self) -> bool {
        self.state.lock().table.is_live()
    }

    /// Lets a checked request with so many rows wait for its turn in its sequence and run, until `deadline`.
    ///
    /// # Errors
    /// InvalidArgument when it names no sequence, or one that has not started; Overloaded when too many wait; Unavailable
    /// when its time in the queue is over, or its sequence has ended with its instance; DeadlineExceeded when it runs for
    /// too long.
    pub(crate) async fn run(
        self: &Arc<Self>,
        mut request: InferRequest,
        rows: Option<i64>,
        arrived: Instant,
        deadline: Option<Instant>,
    ) -> Result<Answer> {
        let model = &self.spec.name;
        let place = SequencePlace::of(&request.parameters)?.ok_or_else(|| refusal::no_sequence(model, &request))?;
        if rows.is_some_and(|rows| rows != 1) {
            return Err(refusal::several_rows(model, &request));
        }
        self.tensors.check_id(&place.id)?;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(late(model));
        }
        without_place(&mut request);
        let (reply, answer) = oneshot::channel();
        let (signature, waiter) = (Signature::of(&self.spec, &request), Waiter::new(deadline));
        self.push(Waiting { request, signature, waiter, reply }, place, arrived)?.wait(answer).await
    }

    /// Puts a request into the queue and begins what can begin.
    fn push(self: &Arc<Self>, waiting: Waiting, place: SequencePlace, arrived: Instant) -> Result<Place<'_>> {
        let (id, request_id) = (place.id.clone(), waiting.request.display_id().to_owned());
        let (waiter, deadline) = (waiting.waiter.clone(), waiting.waiter.deadline().map(Instant::into_std));
        let arrival = Arrival { place, arrived: arrived.into_std(), deadline, payload: waiting };
        let starts = arrival.place.starts;
        let (restarted, pushed) = {
            let mut state = self.state.lock();
            let restarted = starts && state.table.is_open(&id);
            let pushed = state.table.push(arrival, self.max_size);
            (restarted, pushed.map(|ticket| (ticket, state.table.take_touched())))
        };
        let (ticket, touched) = pushed.map_err(|refusal| self.refuse(refusal, &request_id, &id))?;
        if restarted {
            let model = &*self.spec.name;
            tracing::warn!(model, sequence = %id, "a sequence starts anew that has not ended; the old one ends here");
        }
        self.metrics.entered(1);
        let place = Place::new(self, ticket, waiter);
        self.begin(touched);
        self.watch();
        Ok(place)
    }

    fn refuse(&self, refusal: Refusal, request_id: &str, id: &inference::CorrelationId) -> Error {
        let model = &self.spec.name;
        match refusal {
            Refusal::NotStarted(why) => refusal::not_started(model, request_id, id, why),
            Refusal::Full(bound) => queue_full(model, Full::Queue(bound)),
            Refusal::NoInstance => {
                let dead = self.instances.first().and_then(|instance| instance.try_lease().err());
                dead.unwrap_or_else(|| Error::unavailable(format!("model '{model}' was loaded without instances")))
            }
        }
    }

    /// Begins what is due on these instances and can have a turn now; leaves the rest to their drivers.
    fn begin(self: &Arc<Self>, instances: Vec<usize>) {
        for instance in instances {
            if self.state.lock().table.has_work(instance)
                && let Some(permit) = self.executor.try_permit(instance)
                && matches!(self.step(instance, permit), Step::Began)
            {
                continue;
            }
            let mut state = self.state.lock();
            if state.driving[instance] {
                self.changed[instance].notify_one();
            } else if state.table.has_work(instance) {
                state.driving[instance] = true;
                drop(state);
                tokio::spawn(self.clone().drive(instance));
            }
        }
    }

    /// Serves an instance until it runs something or nothing waits for it.
    async fn drive(self: Arc<Self>, instance: usize) {
        while self.has_work(instance) {
            let permit = self.executor.permit(instance).await;
            match self.step(instance, permit) {
                Step::Began | Step::Idle => {}
                Step::Wait(Some(at)) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.changed[instance].notified() => {}
                },
                Step::Wait(None) => self.changed[instance].notified().await,
            }
        }
    }

    /// Whether something waits that an instance could run; if not, its driver ends.
    fn has_work(&self, instance: usize) -> bool {
        let mut state = self.state.lock();
        state.driving[instance] = state.table.has_work(instance);
        state.driving[instance]
    }

    /// Does what is to be done for an instance, now that it can have a turn.
    fn step(self: &Arc<Self>, instance: usize, permit: ExecutionPermit) -> Step {
        let decision = {
            let sign = |waiting: &Waiting, states: Option<&States>| {
                self.tensors.signature(&waiting.request, &waiting.signature, states)
            };
            self.state.lock().table.next(instance, Instant::now().into_std(), &sign)
        };
        decision.expired.into_iter().for_each(|removed| self.expired(removed));
        match decision.next {
            Next::Run(rows) => {
                self.metrics.left(rows.iter().flatten().count());
                tokio::spawn(self.clone().execute(instance, permit, rows));
                Step::Began
            }
            Next::Wait(at) => {
                permit.unused();
                Step::Wait(at.map(Instant::from_std))
            }
            Next::Idle => {
                permit.unused();
                Step::Idle
            }
        }
    }

    /// Tells the callers of requests that left the queue because one of them was late.
    fn expired(&self, removed: Removed<Waiting>) {
        let model = &self.spec.name;
        self.metrics.left(removed.orphans.len() + usize::from(removed.request.is_some()));
        // Whoever is gone needs no answer, here and below.
        removed.request.into_iter().for_each(|waiting| drop(waiting.reply.send(Err(late(model)))));
        removed.orphans.into_iter().for_each(|waiting| drop(waiting.reply.send(Err(refusal::orphaned(model)))));
    }

    async fn execute(self: Arc<Self>, instance: usize, permit: ExecutionPermit, rows: Rows) {
        let deadline = rows.iter().flatten().map(|row| row.payload.waiter.deadline()).reduce(later).flatten();
        // Nobody else has it, except for the moment in which its last batch gives it back.
        let lease = self.instances[instance].lease().await;
        let queue = self.clone();
        let work = move || {
            queue.run_rows(instance, lease, rows);
        };
        // Whoever waits for a batch that is overdue, or was not begun, learns it from its own clock or its channel.
        let _ = run_blocking(permit, deadline, work).await;
    }

    /// Runs a batch, keeps the new states, answers, and begins what can begin next. Blocks.
    fn run_rows(self: &Arc<Self>, instance: usize, lease: Result<Lease>, mut rows: Rows) {
        let began = Instant::now();
        for row in rows.iter_mut().flatten() {
            let signals = Signals { id: &row.id, starts: row.starts, ends: row.ends };
            self.tensors.complete(&mut row.payload.request, &signals, row.state.as_ref());
        }
        let results = match lease {
            Ok(lease) => self.run_requests(lease, &mut rows),
            Err(error) => vec![Err(error); rows.len()],
        };
        let (mut ran, mut lost_starts, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        let shared = rows.len() > 1;
        let is_dead = self.instances[instance].alive() == 0;
        for (row, result) in rows.into_iter().zip(results) {
            let Some(row) = row else { continue };
            let kept = result.and_then(|mut response| {
                let states = self.tensors.take_states(&mut response, shared)?;
                Ok((response, states))
            });
            let (result, states) = match kept {
                Ok((response, states)) => (Ok(response), states),
                Err(error) if is_dead => (Err(refusal::ended_with(&error, &row.id)), None),
                Err(error) => (Err(error), None),
            };
            if row.starts && result.as_ref().is_err_and(is_cancelled) {
                lost_starts.push(row.serial);
            }
            ran.push((row.serial, states));
            let queued = began.saturating_duration_since(Instant::from_std(row.arrived));
            self.metrics.waited(queued);
            replies.push((row.payload.reply, Answer { queued, result }));
        }
        if shared {
            let states = ran.iter().filter_map(|(_, states)| states.as_ref());
            self.metrics.kept_states(states.map(|states| states.len() as u64).sum());
        }
        self.ended(instance, is_dead, ran, &lost_starts);
        for (reply, answer) in replies {
            let _ = reply.send(Ok(answer));
        }
        let touched = self.state.lock().table.take_touched();
        self.begin(touched);
        self.watch();
    }

    fn run_requests(&self, lease: Lease, rows: &mut Rows) -> Vec<Result<InferResponse>> {
        let Some(like) = rows.iter().flatten().next().map(|row| row.payload.request.clone()) else { return Vec::new() };
        let request = |row: &mut Option<Row<Waiting, States>>| match row {
            Some(row) => std::mem::take(&mut row.payload.request),
            None => self.tensors.nobody(&like),
        };
        let requests: Vec<_> = rows.iter_mut().map(request).collect();
        let (spec, each_has_a_row) = (self.tensors.whole(), vec![1; rows.len()]);
        let may_run_alone = self.tensors.hold_all();
        let waiter = |row: &Option<Row<Waiting, States>>| row.as_ref().map(|row| row.payload.waiter.clone());
        let audience = Audience::new(rows.iter().map(waiter));
        let ran = run_together(spec, lease, requests, &each_has_a_row, &audience, may_run_alone);
        let Together { results, copies, executions } = ran;
        self.metrics.ran(&executions);
        self.metrics.joined(copies);
        results
    }

    /// Takes note of the end of a batch, of starts that were cancelled in it, and of its instance if that is dead.
    fn ended(&self, instance: usize, is_dead: bool, ran: Vec<(Serial, Option<States>)>, lost_starts: &[Serial]) {
        let (stranded, orphans) = {
            let mut state = self.state.lock();
            let stranded = if is_dead { state.table.lose(instance) } else { Vec::new() };
            let orphans: Vec<_> = lost_starts.iter().flat_map(|start| state.table.lose_start(*start, 0)).collect();
            state.table.complete(instance, ran, Instant::now().into_std());
            (stranded, orphans)
        };
        self.metrics.left(stranded.len() + orphans.len());
        for orphan in orphans {
            let _ = orphan.reply.send(Err(refusal::orphaned(&self.spec.name)));
        }
        for (id, waiting) in stranded {
            let _ = waiting.reply.send(Err(refusal::stranded(&self.spec.name, &id)));
        }
    }

    /// Sees to it that idle sequences end.
    fn watch(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.table.is_live() && !std::mem::replace(&mut state.watching, true) {
            drop(state);
            tokio::spawn(end_idle(Arc::downgrade(self)));
        }
    }

    /// Ends the sequences that are idle for too long; when to look again, unless there are none left.
    fn end_idle(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        let (touched, next) = {
            let mut state = self.state.lock();
            state.table.end_idle(now.into_std());
            state.watching = state.table.is_live();
            // One that begins to be idle now is idle for long enough no sooner than that.
            let at =
                state.table.next_idle_end().map(Instant::from_std).or_else(|| now.checked_add(state.table.max_idle()));
            (state.table.take_touched(), at.filter(|_| state.watching))
        };
        self.begin(touched);
        next
    }
}

/// Whether a run was ended because nobody waited for it.
fn is_cancelled(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::DeadlineExceeded)
}

/// Ends idle sequences as long as there are any. It does not keep the model in memory.
async fn end_idle(queue: Weak<SequenceQueue>) {
    while let Some(at) = queue.upgrade().and_then(|queue| queue.end_idle()) {
        sleep_until(at).await;
    }
}

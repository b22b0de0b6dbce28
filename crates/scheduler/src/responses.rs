//! The way of a decoupled request's responses from the instance's thread to the task that waits for them: bounded, so that
//! a slow client makes the model wait, and the model's wait is bounded in turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use inference::{CancelCause, Cancellation, Error, ErrorKind, InferResponse, ModelName, ResponseSink, Result};
use parking_lot::{Condvar, Mutex};

use crate::config::StreamConfig;
use crate::executor::PermitSlot;

/// What a request's responses are bounded by.
pub(crate) struct Bounds {
    pub(crate) model: ModelName,
    pub(crate) config: StreamConfig,
    /// When the request must be over.
    pub(crate) deadline: Option<Instant>,
}

/// The two ends of a request's way; the execution's permit is given back while its thread waits.
pub(crate) fn channel(bounds: Bounds, permit: PermitSlot) -> (Sink, Responses) {
    let channel = Arc::new(Channel { cancellation: Cancellation::new(), ..Channel::default() });
    let left = bounds.config.stall_timeout;
    (Sink { channel: channel.clone(), bounds, permit, left, failed: None }, Responses(channel))
}

#[derive(Default)]
struct Channel {
    state: Mutex<State>,
    /// Wakes the instance's thread: there is room, or nobody waits any more.
    taken: Condvar,
    /// Wakes the task: there is a response, or the end.
    given: AtomicWaker,
    /// Cancelled when nobody takes responses any more.
    cancellation: Cancellation,
}

#[derive(Default)]
struct State {
    queue: VecDeque<InferResponse>,
    end: End,
    /// Nobody takes responses any more.
    abandoned: bool,
}

/// Whether more may come.
#[derive(Default)]
enum End {
    #[default]
    Open,
    /// Told once, after what waits in the queue.
    Ended(Result<()>),
    /// The sink was dropped without a word.
    Lost,
    Told,
}

/// The instance's end.
pub(crate) struct Sink {
    channel: Arc<Channel>,
    bounds: Bounds,
    permit: PermitSlot,
    /// How long the model may still wait for its client.
    left: Duration,
    /// What the request has ended in, whatever the model says.
    failed: Option<Error>,
}

impl Sink {
    fn give(&mut self, response: InferResponse) -> Result<()> {
        let channel = self.channel.clone();
        let mut state = channel.state.lock();
        if state.queue.len() >= self.bounds.config.buffer_size.get() {
            let began = Instant::now();
            let until = [began.checked_add(self.left), self.bounds.deadline].into_iter().flatten().min();
            let parked = self.permit.park();
            let is_full =
                |state: &mut State| !state.abandoned && state.queue.len() >= self.bounds.config.buffer_size.get();
            wait_while(&channel, &mut state, until, is_full);
            let full = is_full(&mut state);
            drop(state);
            self.left = self.left.saturating_sub(began.elapsed());
            if full {
                return Err(self.stalled());
            }
            parked.resume();
            state = channel.state.lock();
        }
        if state.abandoned {
            return Err(self.abandoned());
        }
        state.queue.push_back(response);
        drop(state);
        channel.given.wake();
        Ok(())
    }

    fn sleep(&mut self, duration: Duration) -> Result<()> {
        let until = [Instant::now().checked_add(duration), self.bounds.deadline].into_iter().flatten().min();
        let parked = self.permit.park();
        let mut state = self.channel.state.lock();
        wait_while(&self.channel, &mut state, until, |state| !state.abandoned);
        let abandoned = state.abandoned;
        drop(state);
        if abandoned {
            return Err(self.abandoned());
        }
        self.check_deadline()?;
        parked.resume();
        Ok(())
    }

    fn unless_failed(&mut self, work: impl FnOnce(&mut Sink) -> Result<()>) -> Result<()> {
        let result = self.failed.clone().map_or_else(|| work(self), Err);
        self.failed = result.clone().err();
        result
    }

    fn check_deadline(&self) -> Result<()> {
        match self.bounds.deadline {
            Some(deadline) if deadline <= Instant::now() => Err(crate::executor::overdue(&self.bounds.model)),
            _ => Ok(()),
        }
    }

    fn stalled(&self) -> Error {
        if let Err(error) = self.check_deadline() {
            return error;
        }
        let (model, limit) = (&self.bounds.model, self.bounds.config.stall_timeout);
        Error::deadline_exceeded(format!(
            "the client of model '{model}' takes its responses too slowly: the model has waited for it for {limit:?}, which \
             is as long as --stream-stall-timeout allows"
        ))
    }

    fn abandoned(&self) -> Error {
        let message = format!("nobody waits for the responses of model '{}' any more", self.bounds.model);
        Error::new(ErrorKind::Cancelled, message)
    }
}

/// Waits for the task at the other end.
fn wait_while(
    channel: &Channel,
    state: &mut parking_lot::MutexGuard<'_, State>,
    until: Option<Instant>,
    condition: impl FnMut(&mut State) -> bool,
) {
    match until {
        Some(until) => {
            channel.taken.wait_while_until(state, condition, until);
        }
        None => channel.taken.wait_while(state, condition),
    }
}

impl ResponseSink for Sink {
    fn send(&mut self, response: InferResponse) -> Result<()> {
        self.unless_failed(|sink| sink.check_deadline().and_then(|()| sink.give(response)))
    }

    fn pause(&mut self, duration: Duration) -> Result<()> {
        self.unless_failed(|sink| sink.sleep(duration))
    }

    fn is_open(&self) -> bool {
        !self.channel.state.lock().abandoned && self.check_deadline().is_ok()
    }

    fn cancellation(&self) -> Cancellation {
        self.channel.cancellation.clone()
    }

    fn end(mut self: Box<Self>, result: Result<()>) {
        let result = self.failed.take().map_or(result, Err);
        self.channel.state.lock().end = End::Ended(result);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        {
            let mut state = self.channel.state.lock();
            if matches!(state.end, End::Open) {
                state.end = End::Lost;
            }
        }
        self.channel.given.wake();
    }
}

/// What comes out at the other end.
#[derive(Debug)]
pub(crate) enum Next {
    Response(Box<InferResponse>),
    /// The request is over. Told once.
    End(Result<()>),
    /// The model went away without saying how the request ended.
    Lost,
}

/// The end of whoever waits; dropping it tells the instance.
pub(crate) struct Responses(Arc<Channel>);

impl Responses {
    /// The time that the request has is over.
    pub(crate) fn give_up(&self) {
        self.0.cancellation.cancel(CancelCause::Overdue);
    }

    pub(crate) async fn next(&mut self) -> Next {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Next> {
        self.0.given.register(context.waker());
        let mut state = self.0.state.lock();
        if let Some(response) = state.queue.pop_front() {
            drop(state);
            self.0.taken.notify_all();
            return Poll::Ready(Next::Response(Box::new(response)));
        }
        match std::mem::replace(&mut state.end, End::Told) {
            End::Open => {
                state.end = End::Open;
                Poll::Pending
            }
            End::Ended(result) => Poll::Ready(Next::End(result)),
            End::Lost | End::Told => Poll::Ready(Next::Lost),
        }
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.state.lock();
            state.abandoned = true;
            std::mem::take(&mut state.queue)
        };
        self.0.taken.notify_all();
        self.0.cancellation.cancel(CancelCause::Abandoned);
        drop(waiting);
    }
}

//! Requests to decoupled models: each runs on its own, and its responses leave as they come.

use std::time::Duration;

use inference::{BoxStream, ComputeTiming, Error, InferRequest, InferResponse, ModelSpec, Result};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::answer::{Expectation, prepare};
use crate::executor::{PermitSlot, overdue};
use crate::metric::Served;
use crate::model::{Line, ScheduledModel, name_model};
use crate::queue::Turn;
use crate::refusal::{lost, unfinished};
use crate::responses::{Bounds, Next, Responses, channel};
use crate::spans;
use crate::tally::ResponseCount;

/// Refuses to answer with exactly one response what may have any number of them.
///
/// # Errors
/// Unsupported.
pub(crate) fn refuse_single(spec: &ModelSpec) -> Result<()> {
    match spec.decoupled {
        false => Ok(()),
        true => Err(Error::unsupported(format!(
            "model '{}' is decoupled: a request may have any number of responses; ask for a stream",
            spec.name
        ))
        .with_model(&*spec.name)),
    }
}

/// A request that runs.
struct Running {
    expected: Expectation,
    responses: Responses,
    /// Ends when the instance is free; in an error after a panic.
    execution: Option<JoinHandle<Result<()>>>,
    permit: PermitSlot,
    /// When the request must be over.
    deadline: Option<Instant>,
    /// How long the next response may take.
    patience: Duration,
    queued: Duration,
    count: ResponseCount,
    compute: ComputeTiming,
}

impl ScheduledModel {
    /// Runs one request of a decoupled model.
    pub(crate) fn stream(&self, mut request: InferRequest) -> BoxStream<'_, Result<InferResponse>> {
        Box::pin(async_stream::stream! {
            let arrived = Instant::now();
            let span = spans::begin(&self.info, &mut request);
            let mut outcome = self.metrics.arrival(arrived);
            let ended = match self.begin(request, arrived).await {
                Err(error) => Err(error),
                Ok(mut running) => loop {
                    match self.next(&mut running).await {
                        Ok(Some(response)) => {
                            outcome.responded();
                            yield Ok(response);
                        }
                        Ok(None) => break Ok((InferResponse::default(), self.ended(&mut running))),
                        Err(error) => break Err(self.failed(&mut running, error)),
                    }
                },
            };
            if let Some(span) = span {
                spans::end(span, arrived.into_std(), &ended);
            }
            if let Err(error) = outcome.end(ended) {
                yield Err(error);
            }
        })
    }

    /// Waits for the request's turn, and lets it begin.
    async fn begin(&self, request: InferRequest, arrived: Instant) -> Result<Running> {
        let spec = &*self.info.spec;
        let deadline = request.deadline;
        let latest = self.config.deadline(spec, &request, arrived.into_std()).map(Instant::from_std);
        let (request, expected) = prepare(spec, request)?;
        let Line::Single(queue) = &self.line else {
            let message = format!("model '{}' is decoupled; its requests cannot form sequences", spec.name);
            return Err(Error::unsupported(message).with_model(&*spec.name));
        };
        let bounds = Bounds { model: spec.name.clone(), config: self.config.stream, deadline };
        let patience = spec.infer_timeout.unwrap_or(self.config.infer_timeout);
        let (metrics, executor) = (self.metrics.clone(), queue.executor.clone());
        let run = async move |Turn { instance, permit }| {
            let queued = arrived.elapsed();
            metrics.waited(queued);
            let permit = PermitSlot::new(executor, permit);
            let (sink, responses) = channel(bounds, permit.clone());
            let execution = permit.start(move || instance.stream(request, Box::new(sink)));
            Ok(Running {
                expected,
                responses,
                execution: Some(execution),
                permit,
                deadline: deadline.map(Instant::from_std),
                patience,
                queued,
                count: ResponseCount::begin(metrics.tally().clone()),
                compute: ComputeTiming::default(),
            })
        };
        queue.in_turn(latest, run).await.map_err(|error| name_model(spec, error))
    }

    /// The request's next response; `None` after the last.
    async fn next(&self, running: &mut Running) -> Result<Option<InferResponse>> {
        let spec = &*self.info.spec;
        let until = [Instant::now().checked_add(running.patience), running.deadline].into_iter().flatten().min();
        let next = match until {
            Some(until) => timeout_at(until, running.responses.next()).await.map_err(|_elapsed| {
                running.permit.give_up();
                running.responses.give_up();
                name_model(spec, overdue(&spec.name))
            })?,
            None => running.responses.next().await,
        };
        match next {
            Next::Response(mut response) => {
                running.time(&mut response);
                let (is_empty, is_final, timing) = (response.outputs.is_empty(), response.is_final, response.timing);
                let response = match is_empty {
                    // Only says something by its parameters, or that it is the last.
                    true => InferResponse { model: Some(self.info.clone()), ..*response },
                    false => self.finish(&running.expected, *response)?,
                };
                running.count.came(&timing, is_empty, is_final);
                Ok(Some(response))
            }
            Next::End(result) => result.map(|()| None).map_err(|error| name_model(spec, error)),
            Next::Lost => Err(name_model(spec, running.lost().await)),
        }
    }

    /// Counts a request whose last response has come.
    fn ended(&self, running: &mut Running) -> Served {
        running.count.ended();
        self.metrics.executed(running.expected.batch_size(), Some(&running.compute));
        running.served()
    }

    /// Counts a request that began to run, and failed.
    fn failed(&self, running: &mut Running, error: Error) -> Error {
        running.count.failed(&error);
        self.metrics.executed(running.expected.batch_size(), None);
        error
    }
}

impl Running {
    /// A backend that does not time itself is timed.
    fn time(&mut self, response: &mut InferResponse) {
        if response.timing == ComputeTiming::default() {
            response.timing.infer = self.count.elapsed();
        }
        self.compute.add(&response.timing);
    }

    fn served(&self) -> Served {
        Served { batch_size: self.expected.batch_size(), queued: self.queued, compute: self.compute }
    }

    /// Why the model went away.
    async fn lost(&mut self) -> Error {
        let ended = match self.execution.take() {
            Some(execution) => timeout(self.patience, execution).await,
            None => Ok(Ok(Ok(()))),
        };
        match ended {
            Ok(Ok(Err(panicked))) => panicked,
            Ok(Err(gone)) => lost(gone),
            _ => unfinished(),
        }
    }
}

impl Drop for Running {
    /// An instance that does not notice, since it hangs, must not keep its permit.
    fn drop(&mut self) {
        let hanging = self.execution.take().filter(|execution| !execution.is_finished());
        if let (Some(execution), Ok(runtime)) = (hanging, Handle::try_current()) {
            let (patience, permit) = (self.patience, self.permit.clone());
            runtime.spawn(async move {
                if timeout(patience, execution).await.is_err() {
                    permit.give_up();
                }
            });
        }
    }
}

//! Ensembles with decoupled steps: each response of such a step flows on through the steps below it, and each that gets to
//! the end is a response of the ensemble.

use futures::StreamExt;
use inference::{BoxStream, ComputeTiming, InferRequest, InferResponse, Result};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::progress::Progress;
use super::{Ensemble, Run};
use crate::answer::{Expectation, prepare};
use crate::metric::Served;
use crate::spans;

/// How far the steps without many responses have come.
enum Reached {
    /// The ensemble's outputs.
    End(InferResponse),
    /// A decoupled step, with its request; the model before it said that it is the last to come there.
    Decoupled { step: usize, request: InferRequest, is_final: bool },
}

/// A run with many responses, and what all of them took.
struct Many<'e> {
    run: Run<'e>,
    compute: Mutex<ComputeTiming>,
}

impl Ensemble {
    /// Runs one request; its responses leave in the order in which the decoupled step made them.
    pub(super) fn stream(&self, mut request: InferRequest) -> BoxStream<'_, Result<InferResponse>> {
        Box::pin(async_stream::stream! {
            let arrived = Instant::now();
            let mut span = spans::begin(&self.info, &mut request);
            let mut outcome = self.metrics.arrival(arrived);
            let (request, expected) = match prepare(&self.info.spec, request) {
                Ok(prepared) => prepared,
                Err(error) => {
                    if let Some(span) = &mut span {
                        span.fail(&error);
                    }
                    yield outcome.end(Err(error));
                    return;
                }
            };
            let (run, inputs) = self.begin(request, arrived);
            let many = Many { run, compute: Mutex::default() };
            let progress = Progress::new(&self.plan, &many.run.demand, inputs);
            let ready = progress.first_steps();
            let mut responses = self.from(&many, self.reach(&many, progress, ready, true).await, &expected);
            while let Some(response) = responses.next().await {
                match response {
                    Ok(response) => {
                        outcome.responded();
                        yield Ok(response);
                    }
                    Err(error) => {
                        if let Some(span) = &mut span {
                            span.fail(&error);
                        }
                        yield outcome.end(Err(error));
                        return;
                    }
                }
            }
            drop(responses);
            let (queued, compute) = (many.run.queued, *many.compute.lock());
            self.metrics.executed(expected.batch_size(), Some(&compute));
            let _told = outcome.end(Ok(((), Served { batch_size: expected.batch_size(), queued, compute })));
        })
    }

    /// Runs everything up to the next decoupled step, or to the end.
    async fn reach(
        &self,
        many: &Many<'_>,
        mut progress: Progress<'_>,
        ready: Vec<usize>,
        is_final: bool,
    ) -> Result<Reached> {
        let (next, timing) = self.advance(&many.run, &mut progress, ready).await?;
        many.compute.lock().add(&timing);
        Ok(match next {
            Some(step) => {
                let request = self.request_of(step, &many.run, &mut progress);
                Reached::Decoupled { step, request, is_final }
            }
            None => {
                let outputs = progress.into_outputs(|name| many.run.wants(name));
                Reached::End(InferResponse { outputs, timing, is_final, ..InferResponse::default() })
            }
        })
    }

    /// All responses that come of this. A bounded number of responses of a decoupled step is under way below it.
    fn from<'s>(
        &'s self,
        many: &'s Many<'s>,
        reached: Result<Reached>,
        expected: &'s Expectation,
    ) -> BoxStream<'s, Result<InferResponse>> {
        Box::pin(async_stream::try_stream! {
            let (step, request, is_final) = match reached? {
                Reached::End(response) => {
                    yield self.finish(expected, response)?;
                    return;
                }
                Reached::Decoupled { step, request, is_final } => (step, request, is_final),
            };
            let responses = self.steps[step].infer_stream(request);
            let mut below = responses.map(|response| self.follow(many, step, response, is_final)).buffered(self.in_flight());
            while let Some(reached) = below.next().await {
                let Some(reached) = reached? else { continue };
                let mut responses = self.from(many, Ok(reached), expected);
                while let Some(response) = responses.next().await {
                    yield response?;
                }
            }
        })
    }

    /// Takes a response of a decoupled step as far as it gets; nothing comes of one without outputs.
    async fn follow(
        &self,
        many: &Many<'_>,
        step: usize,
        response: Result<InferResponse>,
        is_final: bool,
    ) -> Result<Option<Reached>> {
        let response = response.map_err(|error| self.in_step(step, error))?;
        many.compute.lock().add(&response.timing);
        if response.outputs.is_empty() {
            return Ok(None);
        }
        let is_final = is_final && response.is_final;
        let mut progress = Progress::new(&self.plan, &many.run.demand, Vec::new());
        let ready = progress.complete(step, response.outputs);
        self.reach(many, progress, ready, is_final).await.map(Some)
    }

    /// How many responses of a decoupled step may be under way below it.
    fn in_flight(&self) -> usize {
        let own = self.info.spec.ensemble.as_ref().and_then(|ensemble| ensemble.max_inflight_requests);
        own.map_or(self.config.stream.buffer_size.get(), |bound| usize::try_from(bound).unwrap_or(usize::MAX))
    }
}

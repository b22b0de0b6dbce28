//! Makes requests to a store again, as [`RetryPolicy`] and [`RetryBudget`] decide: the one place where that is done.

use std::time::{Duration, Instant};

use inference::{Error, Result};
use parking_lot::Mutex;

use super::Operation;
use super::retry::{Fault, RetryBudget, RetryPolicy};

/// An error of one try, and what it means for the next.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) fault: Fault,
}

impl Failed {
    pub(crate) fn lasting(error: Error) -> Self {
        Failed { error, fault: Fault::Lasting }
    }

    pub(crate) fn passing(error: Error) -> Self {
        Failed { error, fault: Fault::Passing }
    }
}

/// What one try ends in.
pub(crate) type Try<T> = Result<T, Failed>;

/// Tries of one store's requests.
#[derive(Debug)]
pub(crate) struct Retrier {
    policy: RetryPolicy,
    /// No request is made again once it has taken so long, pauses included.
    longest: Duration,
    budget: Mutex<RetryBudget>,
}

impl Retrier {
    /// At most `tries` for each request, none of them after `longest`.
    pub(crate) fn new(tries: u32, longest: Duration) -> Self {
        Retrier { policy: RetryPolicy::new(tries), longest, budget: Mutex::new(RetryBudget::new(Instant::now())) }
    }

    /// Makes a request until it succeeds or is given up.
    ///
    /// # Errors
    /// That of the last try.
    pub(crate) async fn call<T, F>(&self, operation: Operation, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Try<T>>,
    {
        let started = tokio::time::Instant::now();
        let mut failures = 0;
        loop {
            match attempt().await {
                Ok(done) => {
                    self.succeeded();
                    return Ok(done);
                }
                Err(failed) if started.elapsed() >= self.longest => return Err(failed.error),
                Err(failed) => {
                    failures += 1;
                    self.pause(operation, failed, failures).await?;
                }
            }
        }
    }

    /// Pauses after the last of so many failures in a row.
    ///
    /// # Errors
    /// The failure's, when the request is to be given up.
    pub(crate) async fn pause(&self, operation: Operation, failed: Failed, failures: u32) -> Result<()> {
        let Some(pause) = self.policy.pause_after(failed.fault, failures, fastrand::f64()) else {
            return Err(failed.error);
        };
        let operation = operation.label();
        if !self.budget.lock().take(Instant::now()) {
            metrics::counter!("panoply_store_retries_refused_total", "operation" => operation).increment(1);
            tracing::warn!(operation, "not tried again, too much fails: {:#}", failed.error);
            return Err(failed.error);
        }
        metrics::counter!("panoply_store_retries_total", "operation" => operation).increment(1);
        tracing::info!(operation, failures, ?pause, "tried again after a pause: {:#}", failed.error);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// A request succeeded.
    pub(crate) fn succeeded(&self) {
        self.budget.lock().succeeded();
    }
}

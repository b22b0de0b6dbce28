//! Triton's statistics of one model, and the guard that gives every request exactly one outcome. What is counted here goes to
//! the metrics (`nv_inference_*`) and to the model's [`Tally`], from which clients are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use inference::{ComputeTiming, Error, ErrorKind, Origin, Result};
use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
use tokio::time::Instant;

use crate::first_response::FirstResponse;
use crate::metric_options::{Labels, MetricOptions, Summaries, labels};
use crate::tally::Tally;
use crate::together::Execution;

/// Values of the label `reason`, in the order of [`Reason`].
const REASONS: [&str; 4] = ["OTHER", "BACKEND", "CANCELED", "REJECTED"];

/// Why a request failed, in Triton's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Other,
    Backend,
    Canceled,
    Rejected,
}

impl Reason {
    fn of(error: &Error) -> Self {
        match (error.kind(), error.origin()) {
            (ErrorKind::Cancelled, _) => Reason::Canceled,
            (_, Origin::Model) => Reason::Backend,
            (ErrorKind::Overloaded | ErrorKind::Unavailable | ErrorKind::DeadlineExceeded, Origin::Server) => {
                Reason::Rejected
            }
            _ => Reason::Other,
        }
    }
}

/// Handles of the counters of one version of one model. Take them anew at each load: a recorder may forget idle series.
pub struct ModelMetrics {
    success: Counter,
    failures: [Counter; REASONS.len()],
    inferences: Counter,
    executions: Counter,
    request_us: Counter,
    queue_us: Counter,
    input_us: Counter,
    infer_us: Counter,
    output_us: Counter,
    pending: Gauge,
    queue_seconds: Histogram,
    joined: Counter,
    kept_states: Counter,
    apart: Counter,
    tally: Arc<Tally>,
    summaries: Option<Arc<Summaries>>,
    /// Only of decoupled models, and where asked for.
    first_response: Option<Arc<FirstResponse>>,
    labels: Labels,
}

impl ModelMetrics {
    /// Registers the series of a model under a label of its own. Every series exists, at 0, from here on.
    pub fn new(label: &str, version: u64) -> Self {
        let labels = labels(label, version, &BTreeMap::new());
        ModelMetrics::counting_into(Arc::default(), labels, MetricOptions::default())
    }

    /// As [`ModelMetrics::new`], with statistics that go on from where they were; see [`crate::ModelLabels::metrics`].
    pub(crate) fn counting_into(tally: Arc<Tally>, labels: Labels, options: MetricOptions) -> Self {
        let count = |name: &'static str| {
            let counter = counter!(name, &labels);
            counter.increment(0);
            counter
        };
        let failure = |reason: &str| {
            let mut labels = labels.clone();
            labels.insert(1, ("reason".to_owned(), reason.to_owned()));
            let counter = counter!("nv_inference_request_failure", &labels);
            counter.increment(0);
            counter
        };
        let pending = gauge!("nv_inference_pending_request_count", &labels);
        pending.increment(0.0);
        ModelMetrics {
            success: count("nv_inference_request_success"),
            failures: REASONS.map(failure),
            inferences: count("nv_inference_count"),
            executions: count("nv_inference_exec_count"),
            request_us: count("nv_inference_request_duration_us"),
            queue_us: count("nv_inference_queue_duration_us"),
            input_us: count("nv_inference_compute_input_duration_us"),
            infer_us: count("nv_inference_compute_infer_duration_us"),
            output_us: count("nv_inference_compute_output_duration_us"),
            pending,
            queue_seconds: histogram!("panoply_queue_duration_seconds"),
            joined: counter!("panoply_tensor_copies_total", "reason" => "batching"),
            kept_states: counter!("panoply_tensor_copies_total", "reason" => "sequence_state"),
            apart: count("panoply_failed_batches_total"),
            tally,
            summaries: options.summaries.then(|| Arc::new(Summaries::new(&labels))),
            first_response: None,
            labels,
        }
    }

    /// With a histogram of times to the first response.
    pub(crate) fn with_first_response(self, first_response: Option<Arc<FirstResponse>>) -> Self {
        ModelMetrics { first_response, ..self }
    }

    /// The labels of the model's series.
    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Its summaries, where they are kept.
    pub(crate) fn summaries(&self) -> Option<&Arc<Summaries>> {
        self.summaries.as_ref()
    }

    /// The model's statistics.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// A further series of the same model; it exists, at 0, from here on.
    pub(crate) fn counter(&self, name: &'static str) -> Counter {
        let counter = counter!(name, &self.labels);
        counter.increment(0);
        counter
    }

    /// How long the model's load took, in seconds.
    pub fn load_duration(&self) -> Gauge {
        gauge!("nv_model_load_duration_secs", &self.labels)
    }

    pub(crate) fn pending(&self) -> Gauge {
        self.pending.clone()
    }

    /// Requests have begun to wait.
    pub(crate) fn entered(&self, requests: usize) {
        self.pending.increment(requests as f64);
    }

    /// Requests wait no longer.
    pub(crate) fn left(&self, requests: usize) {
        self.pending.decrement(requests as f64);
    }

    /// Tensors were copied to stand together.
    pub(crate) fn joined(&self, tensors: u64) {
        self.joined.increment(tensors);
    }

    /// States of sequences were copied out of what they were parts of.
    pub(crate) fn kept_states(&self, tensors: u64) {
        self.kept_states.increment(tensors);
    }

    /// A batch of so many rows was run; `timing` is absent where it failed.
    pub(crate) fn executed(&self, rows: u64, timing: Option<&ComputeTiming>) {
        self.executions.increment(1);
        self.tally.executed(rows, timing);
    }

    /// What was run for one batch: once; more often where it failed and its requests ran alone.
    pub(crate) fn ran(&self, executions: &[Execution]) {
        executions.iter().for_each(|Execution { rows, timing }| self.executed(*rows, timing.as_ref()));
        if executions.len() > 1 {
            self.apart.increment(1);
        }
    }

    pub(crate) fn waited(&self, queued: Duration) {
        self.queue_seconds.record(queued.as_secs_f64());
    }

    /// A request has arrived; what is returned must be told how it ends.
    pub(crate) fn arrival(&self, at: Instant) -> Outcome<'_> {
        Outcome { metrics: self, arrived: at, open: true, has_responded: false }
    }

    fn fail(&self, reason: Reason, took: Duration) {
        self.failures[reason as usize].increment(1);
        self.tally.failed(took);
    }
}

/// What is counted for a request that succeeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    /// Rows in the request's batch; 1 where the model does not batch.
    pub(crate) batch_size: u64,
    /// From arrival to the begin of the execution.
    pub(crate) queued: Duration,
    /// Time in the backend.
    pub(crate) compute: ComputeTiming,
}

/// The one outcome of a request. Dropped unsaid, it counts as cancelled.
pub(crate) struct Outcome<'m> {
    metrics: &'m ModelMetrics,
    arrived: Instant,
    open: bool,
    has_responded: bool,
}

impl Outcome<'_> {
    /// One of many responses leaves.
    pub(crate) fn responded(&mut self) {
        if !std::mem::replace(&mut self.has_responded, true)
            && let Some(first_response) = &self.metrics.first_response
        {
            first_response.record(self.arrived.elapsed());
        }
    }

    /// Counts how the request ended.
    pub(crate) fn end<T>(mut self, result: Result<(T, Served)>) -> Result<T> {
        self.open = false;
        match result {
            Ok((response, served)) => {
                self.succeeded(&served);
                Ok(response)
            }
            Err(error) => {
                self.metrics.fail(Reason::of(&error), self.arrived.elapsed());
                Err(error)
            }
        }
    }

    fn succeeded(&self, served: &Served) {
        let (metrics, took) = (self.metrics, self.arrived.elapsed());
        metrics.tally.computed(served.batch_size, served.queued, &served.compute, took);
        metrics.success.increment(1);
        metrics.inferences.increment(served.batch_size);
        metrics.request_us.increment(micros(took));
        metrics.queue_us.increment(micros(served.queued));
        metrics.input_us.increment(micros(served.compute.input));
        metrics.infer_us.increment(micros(served.compute.infer));
        metrics.output_us.increment(micros(served.compute.output));
        if let Some(summaries) = &metrics.summaries {
            summaries.answered(took, served.queued, Some(&served.compute));
        }
    }
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if self.open {
            self.metrics.fail(Reason::Canceled, self.arrived.elapsed());
        }
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Describes this crate's metrics to the recorder, in the words of Triton's own scrape.
pub fn describe_metrics() {
    crate::metric_options::describe_metrics();
    crate::response_cache::describe_metrics();
    let counters = [
        ("nv_inference_request_success", "Number of successful inference requests, all batch sizes"),
        ("nv_inference_request_failure", "Number of failed inference requests, all batch sizes"),
        ("nv_inference_count", "Number of inferences performed (does not include cached requests)"),
        ("nv_inference_exec_count", "Number of model executions performed (does not include cached requests)"),
        (
            "nv_inference_request_duration_us",
            "Cumulative inference request duration in microseconds (includes cached requests)",
        ),
        (
            "nv_inference_queue_duration_us",
            "Cumulative inference queuing duration in microseconds (includes cached requests)",
        ),
        (
            "nv_inference_compute_input_duration_us",
            "Cumulative compute input duration in microseconds (does not include cached requests)",
        ),
        (
            "nv_inference_compute_infer_duration_us",
            "Cumulative compute inference duration in microseconds (does not include cached requests)",
        ),
        (
            "nv_inference_compute_output_duration_us",
            "Cumulative inference compute output duration in microseconds (does not include cached requests)",
        ),
        ("panoply_failed_batches_total", "Batches that failed and whose requests were then run each alone"),
    ];
    for (name, description) in counters {
        metrics::describe_counter!(name, description);
    }
    metrics::describe_gauge!("nv_model_load_duration_secs", Unit::Seconds, "Model load time in seconds");
    metrics::describe_gauge!(
        "nv_inference_pending_request_count",
        "Instantaneous number of pending requests awaiting execution per-model."
    );
    metrics::describe_histogram!(
        "panoply_queue_duration_seconds",
        Unit::Seconds,
        "Time from a request's arrival at a model to the begin of its execution, all models together"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_follow_kind_and_origin() {
        let cases = [
            (Error::new(ErrorKind::Cancelled, ""), Reason::Canceled),
            (Error::overloaded(""), Reason::Rejected),
            (Error::deadline_exceeded(""), Reason::Rejected),
            (Error::deadline_exceeded("").from_model(), Reason::Backend),
            (Error::internal("").from_model(), Reason::Backend),
            (Error::invalid_argument(""), Reason::Other),
        ];
        for (error, reason) in cases {
            assert_eq!(Reason::of(&error), reason, "{error:?}");
            assert_eq!(REASONS[reason as usize], format!("{reason:?}").to_uppercase());
        }
    }
}

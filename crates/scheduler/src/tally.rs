//! What one version of a model has done so far, in counters that requests add to without a lock.

mod batches;
mod responses;
mod segments;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use inference::{ComputeTiming, InferStatistics, MemoryUsage, ModelStatistics, StatisticDuration};

use batches::BatchTallies;
pub(crate) use responses::ResponseCount;
use responses::ResponseTallies;

/// How often something happened, and how long it took.
#[derive(Debug, Default)]
pub(crate) struct Timed {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Timed {
    pub(crate) fn add(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn read(&self) -> StatisticDuration {
        let total = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed));
        StatisticDuration { count: self.count.load(Ordering::Relaxed), total }
    }
}

/// The three parts of a computation.
#[derive(Debug, Default)]
pub(crate) struct TimedCompute {
    input: Timed,
    infer: Timed,
    output: Timed,
}

impl TimedCompute {
    fn add(&self, timing: &ComputeTiming) {
        self.input.add(timing.input);
        self.infer.add(timing.infer);
        self.output.add(timing.output);
    }
}

/// The statistics of one version of one model. They outlive the loaded model: see [`crate::ModelLabels`].
///
/// Each figure is exact; a reader may see those of one request half added.
#[derive(Debug, Default)]
pub struct Tally {
    success: Timed,
    fail: Timed,
    queue: Timed,
    compute: TimedCompute,
    cache_hit: Timed,
    cache_miss: Timed,
    inferences: AtomicU64,
    executions: AtomicU64,
    last_inference_ms: AtomicU64,
    batches: BatchTallies,
    responses: ResponseTallies,
}

impl Tally {
    /// A request was answered by the model.
    pub(crate) fn computed(&self, batch_size: u64, queued: Duration, compute: &ComputeTiming, took: Duration) {
        self.inferences.fetch_add(batch_size, Ordering::Relaxed);
        self.compute.add(compute);
        self.succeeded(queued, took);
    }

    fn succeeded(&self, queued: Duration, took: Duration) {
        self.success.add(took);
        self.queue.add(queued);
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        // Not the greatest so far: a clock that was ahead for a while would be right never again.
        self.last_inference_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A request was answered from the response cache.
    pub(crate) fn hit(&self, took: Duration) {
        self.cache_hit.add(took);
        self.succeeded(Duration::ZERO, took);
    }

    /// The response cache had no answer; the model's own is counted by itself.
    pub(crate) fn missed(&self, took: Duration) {
        self.cache_miss.add(took);
    }

    pub(crate) fn failed(&self, took: Duration) {
        self.fail.add(took);
    }

    /// A batch was run; `timing` is absent where it failed.
    pub(crate) fn executed(&self, rows: u64, timing: Option<&ComputeTiming>) {
        self.executions.fetch_add(1, Ordering::Relaxed);
        if let Some(timing) = timing {
            self.batches.add(rows, timing);
        }
    }

    /// The figures of this moment, under the name that the reader knows the model by.
    pub fn read(&self, name: impl Into<String>, version: u64, memory: MemoryUsage) -> ModelStatistics {
        ModelStatistics {
            name: name.into(),
            version,
            last_inference_ms: self.last_inference_ms.load(Ordering::Relaxed),
            inference_count: self.inferences.load(Ordering::Relaxed),
            execution_count: self.executions.load(Ordering::Relaxed),
            inference: InferStatistics {
                success: self.success.read(),
                fail: self.fail.read(),
                queue: self.queue.read(),
                compute_input: self.compute.input.read(),
                compute_infer: self.compute.infer.read(),
                compute_output: self.compute.output.read(),
                cache_hit: self.cache_hit.read(),
                cache_miss: self.cache_miss.read(),
            },
            batches: self.batches.read(),
            responses: self.responses.read(),
            memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_executions_add_up() {
        let tally = Tally::default();
        let milliseconds = Duration::from_millis;
        let timing = ComputeTiming { input: milliseconds(1), infer: milliseconds(2), output: milliseconds(3) };
        for rows in [1, 2] {
            tally.computed(rows, milliseconds(4), &timing, milliseconds(10));
        }
        tally.executed(3, Some(&timing));
        tally.executed(1, None);
        tally.failed(milliseconds(5));
        let read = tally.read("m", 7, MemoryUsage::default());
        assert_eq!((read.name.as_str(), read.version), ("m", 7));
        assert_eq!((read.inference_count, read.execution_count), (3, 2));
        let twice = |each: u64| StatisticDuration { count: 2, total: milliseconds(2 * each) };
        let InferStatistics { success, fail, queue, compute_input, compute_infer, compute_output, .. } = read.inference;
        assert_eq!([success, queue, compute_input, compute_infer, compute_output], [10, 4, 1, 2, 3].map(twice));
        assert_eq!(fail, StatisticDuration { count: 1, total: milliseconds(5) });
        assert_eq!(read.batches.len(), 1, "what failed has no batch size of its own");
        assert_eq!((read.batches[0].batch_size, read.batches[0].compute_infer.count), (3, 1));
        let age =
            SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() - u128::from(read.last_inference_ms);
        assert!(age < 60_000, "{age} ms ago");
    }
}

//! Histograms of the time to the first response of decoupled models. The recorder has one list of buckets for all series of a
//! name, while Triton's configuration chooses buckets model by model; so these are kept and written here.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::metric_options::Labels;

const NAME: &str = "nv_inference_first_response_histogram_ms";
const HELP: &str = "Duration from request to first response in milliseconds";

/// Upper bounds where the model's configuration has no others, in milliseconds; Triton's.
const DEFAULT_BUCKETS: [f64; 4] = [100.0, 500.0, 2000.0, 5000.0];

/// One model's times.
#[derive(Debug)]
pub(crate) struct FirstResponse {
    /// Upper bounds in milliseconds, ascending.
    bounds: Vec<f64>,
    /// One for each bound, for what is at most that and more than the one before; then one for what is more than all.
    counts: Vec<AtomicU64>,
    nanoseconds: AtomicU64,
}

impl FirstResponse {
    fn new(bounds: &[f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::default()).collect();
        FirstResponse { bounds: bounds.to_vec(), counts, nanoseconds: AtomicU64::default() }
    }

    pub(crate) fn record(&self, took: Duration) {
        let milliseconds = took.as_secs_f64() * 1e3;
        self.counts[self.bounds.partition_point(|bound| *bound < milliseconds)].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// `labels` are those of the model, as they are written.
    fn render(&self, labels: &str, out: &mut String) {
        let bounds = self.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let mut total = 0;
        let mut buckets = String::new();
        for (bound, count) in bounds.zip(&self.counts) {
            total += count.load(Ordering::Relaxed);
            line(&mut buckets, format_args!("{NAME}_bucket{{{labels},le=\"{bound}\"}} {total}"));
        }
        let sum = self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e6;
        line(out, format_args!("{NAME}_count{{{labels}}} {total}"));
        line(out, format_args!("{NAME}_sum{{{labels}}} {sum}"));
        out.push_str(&buckets);
    }
}

/// The histograms of all models, kept when these leave memory.
#[derive(Debug, Default)]
pub(crate) struct FirstResponses(Mutex<BTreeMap<Labels, Arc<FirstResponse>>>);

impl FirstResponses {
    /// The histogram of a model that is loaded. It begins anew where its buckets are others than before.
    pub(crate) fn of(&self, labels: &Labels, buckets: Option<&[f64]>) -> Arc<FirstResponse> {
        let bounds = buckets.unwrap_or(&DEFAULT_BUCKETS);
        let mut all = self.0.lock();
        match all.get(labels).filter(|kept| kept.bounds == bounds) {
            Some(kept) => kept.clone(),
            None => {
                let new = Arc::new(FirstResponse::new(bounds));
                all.insert(labels.clone(), new.clone());
                new
            }
        }
    }

    /// All of them in Prometheus' text format; nothing where there are none.
    pub(crate) fn render(&self) -> String {
        let all = self.0.lock();
        let mut out = String::new();
        if !all.is_empty() {
            line(&mut out, format_args!("# HELP {NAME} {HELP}"));
            line(&mut out, format_args!("# TYPE {NAME} histogram"));
        }
        for (labels, of) in all.iter() {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            of.render(&labels.join(","), &mut out);
        }
        out
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("invariant: a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_cumulative_buckets() {
        let all = FirstResponses::default();
        assert_eq!(all.render(), "");
        let labels = vec![("model".to_owned(), "a \"b\"".to_owned()), ("version".to_owned(), "1".to_owned())];
        let of = all.of(&labels, Some(&[0.5, 100.0]));
        [400, 500, 501, 200_000].iter().for_each(|micros| of.record(Duration::from_micros(*micros)));
        assert!(Arc::ptr_eq(&of, &all.of(&labels, Some(&[0.5, 100.0]))), "it goes on after a load");
        let expected = [
            "# HELP nv_inference_first_response_histogram_ms Duration from request to first response in milliseconds",
            "# TYPE nv_inference_first_response_histogram_ms histogram",
            "nv_inference_first_response_histogram_ms_count{model=\"a \\\"b\\\"\",version=\"1\"} 4",
            "nv_inference_first_response_histogram_ms_sum{model=\"a \\\"b\\\"\",version=\"1\"} 201.401",
            "nv_inference_first_response_histogram_ms_bucket{model=\"a \\\"b\\\"\",version=\"1\",le=\"0.5\"} 2",
            "nv_inference_first_response_histogram_ms_bucket{model=\"a \\\"b\\\"\",version=\"1\",le=\"100\"} 3",
            "nv_inference_first_response_histogram_ms_bucket{model=\"a \\\"b\\\"\",version=\"1\",le=\"+Inf\"} 4",
        ];
        assert_eq!(all.render().lines().collect::<Vec<_>>(), expected);
        let other = all.of(&labels, None);
        assert_eq!((other.bounds.as_slice(), other.counts[0].load(Ordering::Relaxed)), (&DEFAULT_BUCKETS[..], 0));
    }
}

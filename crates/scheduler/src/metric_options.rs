//! Which of Triton's optional metrics are kept, and the labels that a model's configuration adds to its own.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{Histogram, histogram};

use inference::ComputeTiming;

/// Metrics that cost something for each request, so that Triton and this server keep them only when asked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricOptions {
    /// Summaries of latencies (`nv_inference_*_summary_us`, `nv_cache_*_summary_per_model`).
    pub summaries: bool,
    /// Histograms of times to the first response, of decoupled models (`nv_inference_first_response_histogram_ms`).
    pub histograms: bool,
}

/// The labels of one version of one model.
pub(crate) type Labels = Vec<(String, String)>;

/// `model`, `version`, and the configuration's `metric_tags`, each behind an underscore, as Triton has them. Characters that
/// a label's name cannot have become underscores.
pub(crate) fn labels(model: &str, version: u64, tags: &BTreeMap<String, String>) -> Labels {
    let sound = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
    let tags =
        tags.iter().map(|(name, value)| (format!("_{}", name.chars().map(sound).collect::<String>()), value.clone()));
    let own = [("model".to_owned(), model.to_owned()), ("version".to_owned(), version.to_string())];
    own.into_iter().chain(tags).collect()
}

/// Summaries of one model's latencies, in microseconds.
pub(crate) struct Summaries {
    request: Histogram,
    queue: Histogram,
    input: Histogram,
    infer: Histogram,
    output: Histogram,
}

impl Summaries {
    pub(crate) fn new(labels: &Labels) -> Self {
        Summaries {
            request: histogram!("nv_inference_request_summary_us", labels),
            queue: histogram!("nv_inference_queue_summary_us", labels),
            input: histogram!("nv_inference_compute_input_summary_us", labels),
            infer: histogram!("nv_inference_compute_infer_summary_us", labels),
            output: histogram!("nv_inference_compute_output_summary_us", labels),
        }
    }

    /// A request was answered; `compute` is absent where the response cache did.
    pub(crate) fn answered(&self, took: Duration, queued: Duration, compute: Option<&ComputeTiming>) {
        self.request.record(microseconds(took));
        self.queue.record(microseconds(queued));
        if let Some(ComputeTiming { input, infer, output }) = compute {
            self.input.record(microseconds(*input));
            self.infer.record(microseconds(*infer));
            self.output.record(microseconds(*output));
        }
    }
}

pub(crate) fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Describes these metrics to the recorder, in the words of Triton's own scrape.
pub(crate) fn describe_metrics() {
    for (name, description) in [
        (
            "nv_inference_request_summary_us",
            "Summary of inference request duration in microseconds (includes cached requests)",
        ),
        (
            "nv_inference_queue_summary_us",
            "Summary of inference queuing duration in microseconds (includes cached requests)",
        ),
        (
            "nv_inference_compute_input_summary_us",
            "Summary of inference compute input duration in microseconds (does not include cached requests)",
        ),
        (
            "nv_inference_compute_infer_summary_us",
            "Summary of inference compute inference duration in microseconds (does not include cached requests)",
        ),
        (
            "nv_inference_compute_output_summary_us",
            "Summary of inference compute output duration in microseconds (does not include cached requests)",
        ),
        ("nv_cache_hit_summary_per_model", "Summary of cache hit duration per model, in microseconds"),
        (
            "nv_cache_miss_summary_per_model",
            "Summary of cache miss (insert+lookup) duration per model, in microseconds",
        ),
    ] {
        metrics::describe_histogram!(name, description);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_stand_behind_an_underscore() {
        let tags = BTreeMap::from([("team".to_owned(), "a b".to_owned()), ("cost-centre".to_owned(), "7".to_owned())]);
        let expected = [("model", "m"), ("version", "3"), ("_cost_centre", "7"), ("_team", "a b")];
        assert_eq!(labels("m", 3, &tags), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}

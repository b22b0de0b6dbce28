//! `model_metrics`: buckets of the model's histograms.

use protocol::model_config::ModelConfig;
use protocol::model_config::model_metrics::metric_control::MetricOptions;

use super::Findings;

/// The one histogram that models have of their own.
const FIRST_RESPONSE: &str = "nv_inference_first_response_histogram_ms";

/// The most buckets of one histogram: each is a series.
const MOST_BUCKETS: usize = 64;

/// Upper bounds of the buckets of the time to the first response, in milliseconds, where they are given. Buckets of families
/// that do not exist here are checked and passed over.
pub(super) fn first_response_buckets(config: &ModelConfig, findings: &mut Findings) -> Option<Vec<f64>> {
    let mut own = None;
    let controls = config.model_metrics.iter().flat_map(|metrics| &metrics.metric_control);
    for (index, control) in controls.enumerate() {
        let path = format!("model_metrics.metric_control[{index}]");
        let family = control.metric_identifier.as_ref().map_or("", |identifier| identifier.family.as_str());
        if family.is_empty() {
            let message = format!(
                "a metric is named by `metric_identifier {{ family: \"{FIRST_RESPONSE}\" }}`, which is missing"
            );
            findings.add(&*path, message);
        }
        let buckets = match &control.metric_options {
            Some(MetricOptions::HistogramOptions(options)) => options.buckets.as_slice(),
            None => &[],
        };
        match problem(buckets) {
            Some(problem) => findings.add(format!("{path}.histogram_options.buckets"), problem),
            None if family == FIRST_RESPONSE => own = Some(buckets.to_vec()),
            None => {}
        }
    }
    own
}

/// What is wrong with upper bounds.
fn problem(buckets: &[f64]) -> Option<String> {
    let ascending = buckets.windows(2).all(|pair| pair[0] < pair[1]) && buckets.iter().all(|bound| bound.is_finite());
    match buckets.len() {
        0 => Some("`histogram_options` needs `buckets`: upper bounds, ascending".to_owned()),
        count if count > MOST_BUCKETS => Some(format!("there are {count} buckets; at most {MOST_BUCKETS} are allowed")),
        _ if !ascending => Some(format!("`buckets` must be numbers, each more than the one before, not {buckets:?}")),
        _ => None,
    }
}

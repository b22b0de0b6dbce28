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

#[cfg(test)]
mod tests {
    use protocol::model_config::ModelMetrics;
    use protocol::model_config::model_metrics::MetricControl;
    use protocol::model_config::model_metrics::metric_control::{HistogramOptions, MetricIdentifier};

    use super::*;

    /// The buckets that are read, and what is wrong, of these families with these buckets.
    fn read(controls: &[(&str, &[f64])]) -> (Option<Vec<f64>>, Vec<String>) {
        let control = |(family, buckets): &(&str, &[f64])| MetricControl {
            metric_identifier: Some(MetricIdentifier { family: (*family).to_owned() }),
            metric_options: Some(MetricOptions::HistogramOptions(HistogramOptions { buckets: buckets.to_vec() })),
        };
        let metric_control = controls.iter().map(control).collect();
        let config = ModelConfig { model_metrics: Some(ModelMetrics { metric_control }), ..ModelConfig::default() };
        let mut findings = Findings::default();
        let own = first_response_buckets(&config, &mut findings);
        (own, findings.0.into_iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect())
    }

    #[test]
    fn buckets_are_those_of_the_family_that_exists() {
        assert_eq!(read(&[(FIRST_RESPONSE, &[0.5, 10.0])]), (Some(vec![0.5, 10.0]), vec![]));
        assert_eq!(read(&[("nv_another_histogram_ms", &[1.0])]), (None, vec![]));
        assert_eq!(read(&[]), (None, vec![]));
    }

    #[test]
    fn what_is_wrong_is_told_where_it_stands() {
        let many: Vec<f64> = (0..65).map(f64::from).collect();
        let infinite = [1.0, f64::INFINITY];
        let wrong: [(&[f64], &str); 4] = [
            (&[], "needs `buckets`"),
            (&[2.0, 2.0], "more than"),
            (&infinite, "must be numbers"),
            (&many, "at most 64"),
        ];
        for (buckets, part) in wrong {
            let (own, found) = read(&[("x", &[1.0]), (FIRST_RESPONSE, buckets)]);
            let [found] = &found[..] else { panic!("{found:?}") };
            assert!(own.is_none() && found.contains(part), "{found}");
            assert!(found.starts_with("model_metrics.metric_control[1].histogram_options.buckets: "), "{found}");
        }
        assert!(read(&[("", &[1.0])]).1[0].contains("which is missing"));
    }
}

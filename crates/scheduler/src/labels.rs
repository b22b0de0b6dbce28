//! Bounds how many models get metric series of their own, and keeps the statistics of those that do.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use inference::{MemoryUsage, ModelSpec, ModelStatistics};
use parking_lot::Mutex;

use crate::first_response::FirstResponses;
use crate::metric::ModelMetrics;
use crate::metric_options::{MetricOptions, labels};
use crate::tally::Tally;

/// Hands out values for the metric label `model`: the first so many names as they are, then `other` for every new one.
///
/// A name that once had its own value keeps it, because its series stay in the scrape after the model is unloaded; so do
/// its statistics, which go on when it is loaded again. Names past the limit begin anew with each load.
#[derive(Debug)]
pub struct ModelLabels {
    limit: usize,
    options: MetricOptions,
    other: Arc<str>,
    known: Mutex<HashMap<Arc<str>, Versions>>,
    first_responses: FirstResponses,
}

/// The statistics of a model's versions.
type Versions = BTreeMap<u64, Arc<Tally>>;

impl ModelLabels {
    /// The value that all names past the limit share.
    pub const OTHER: &'static str = "other";

    /// Labels for at most `limit` names.
    pub fn new(limit: usize, options: MetricOptions) -> Self {
        let (known, first_responses) = Default::default();
        ModelLabels { limit, options, other: Arc::from(Self::OTHER), known, first_responses }
    }

    /// Metrics of one version of a model, under its label and the `metric_tags` of its configuration. What shares a label with
    /// others has neither tags nor buckets of its own.
    pub fn metrics(&self, name: &str, version: u64, spec: &ModelSpec) -> ModelMetrics {
        let (label, tally) = self.kept_or_new(name, version);
        let none = BTreeMap::new();
        let (tags, buckets) = match *label == *name {
            true => (&spec.metric_tags, spec.first_response_buckets.as_deref()),
            false => (&none, None),
        };
        let labels = labels(&label, version, tags);
        let of_first = || self.first_responses.of(&labels, buckets);
        let first_response = (self.options.histograms && spec.decoupled).then(of_first);
        ModelMetrics::counting_into(tally, labels, self.options).with_first_response(first_response)
    }

    /// The histograms that the recorder does not keep, in Prometheus' text format.
    pub fn render_histograms(&self) -> String {
        self.first_responses.render()
    }

    fn kept_or_new(&self, name: &str, version: u64) -> (Arc<str>, Arc<Tally>) {
        let mut known = self.known.lock();
        let is_full = known.len() >= self.limit;
        match known.entry(Arc::from(name)) {
            Entry::Vacant(_) if is_full => (self.other.clone(), Arc::default()),
            entry => {
                let label = entry.key().clone();
                (label, entry.or_default().entry(version).or_default().clone())
            }
        }
    }

    /// The statistics that are kept of a model, whether it is loaded or not, oldest version first.
    pub fn kept(&self, name: &str) -> Vec<ModelStatistics> {
        let known = self.known.lock();
        let versions = known.get(name).into_iter().flatten();
        versions.map(|(version, tally)| tally.read(name, *version, MemoryUsage::default())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_past_the_limit_share_a_value() {
        let labels = ModelLabels::new(2, MetricOptions::default());
        let given: Vec<String> =
            ["a", "b", "c", "a", "d", "b"].iter().map(|name| labels.kept_or_new(name, 1).0.to_string()).collect();
        assert_eq!(given, ["a", "b", "other", "a", "other", "b"]);
    }

    #[test]
    fn statistics_are_kept_as_long_as_the_label() {
        let labels = ModelLabels::new(1, MetricOptions::default());
        for name in ["a", "past the limit"] {
            labels.kept_or_new(name, 2).1.executed(1, None);
        }
        labels.kept_or_new("a", 2).1.executed(1, None);
        labels.kept_or_new("a", 1).1.executed(1, None);
        let executions = |name| labels.kept(name).iter().map(|kept| kept.execution_count).collect::<Vec<_>>();
        assert_eq!((executions("a"), executions("past the limit")), (vec![1, 2], vec![]));
    }
}

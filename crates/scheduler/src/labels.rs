//! Bounds how many models get metric series of their own.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// Hands out values for the metric label `model`: the first so many names as they are, then `other` for every new one.
///
/// A name that once had its own value keeps it, because its series stay in the scrape after the model is unloaded.
#[derive(Debug)]
pub struct ModelLabels {
    limit: usize,
    other: Arc<str>,
    known: Mutex<HashSet<Arc<str>>>,
}

impl ModelLabels {
    /// The value that all names past the limit share.
    pub const OTHER: &'static str = "other";

    /// Labels for at most `limit` names.
    pub fn new(limit: usize) -> Self {
        ModelLabels { limit, other: Arc::from(Self::OTHER), known: Mutex::default() }
    }

    /// The label value for a model's name.
    pub fn label(&self, name: &str) -> Arc<str> {
        let mut known = self.known.lock();
        if let Some(label) = known.get(name) {
            return label.clone();
        }
        if known.len() >= self.limit {
            return self.other.clone();
        }
        let label: Arc<str> = Arc::from(name);
        known.insert(label.clone());
        label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_past_the_limit_share_a_value() {
        let labels = ModelLabels::new(2);
        let given: Vec<String> =
            ["a", "b", "c", "a", "d", "b"].iter().map(|name| labels.label(name).to_string()).collect();
        assert_eq!(given, ["a", "b", "other", "a", "other", "b"]);
    }
}

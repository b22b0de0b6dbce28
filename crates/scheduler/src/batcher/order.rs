//! Lets results out in the order in which their work began; pure.

use std::collections::BTreeMap;

/// Results that wait for those before them.
///
/// Everything below `next` is out; `held` has only what is not.
#[derive(Debug)]
pub(crate) struct InOrder<T> {
    next: u64,
    held: BTreeMap<u64, T>,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        InOrder { next: 0, held: BTreeMap::new() }
    }
}

impl<T> InOrder<T> {
    /// The work numbered `number` (from 0 on) has ended; the first result of each number counts. Returns what may go out.
    pub(crate) fn finish(&mut self, number: u64, result: T) -> Vec<T> {
        if number < self.next {
            return vec![result];
        }
        self.held.entry(number).or_insert(result);
        let mut out = Vec::new();
        while let Some(result) = self.held.remove(&self.next) {
            out.push(result);
            self.next += 1;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_wait_for_those_before_them() {
        let mut order = InOrder::default();
        assert!(order.finish(2, "c").is_empty());
        assert!(order.finish(1, "b").is_empty());
        assert!(order.finish(1, "again").is_empty());
        assert_eq!(order.finish(0, "a"), ["a", "b", "c"]);
        assert_eq!(order.finish(0, "late"), ["late"]);
        assert_eq!(order.finish(3, "d"), ["d"]);
    }
}

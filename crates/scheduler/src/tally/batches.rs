//! Executions by batch size. The sizes that are run make their own room, and none is found under a lock.

use std::collections::BTreeMap;

use inference::{BatchStatistics, ComputeTiming};
use parking_lot::Mutex;

use super::TimedCompute;
use super::segments::Segments;

/// How many different larger sizes are told apart. Each takes longer to run than its lock to take.
const MAX_LARGE_SIZES: usize = 1024;

/// Counters by batch size. Small sizes have counters of their own, without a lock.
#[derive(Debug, Default)]
pub(super) struct BatchTallies {
    small: Segments<TimedCompute>,
    large: Mutex<BTreeMap<u64, TimedCompute>>,
}

impl BatchTallies {
    pub(super) fn add(&self, rows: u64, timing: &ComputeTiming) {
        let rows = rows.max(1);
        match self.small.of(rows) {
            Some(counted) => counted.add(timing),
            None => {
                let mut large = self.large.lock();
                if large.len() < MAX_LARGE_SIZES || large.contains_key(&rows) {
                    large.entry(rows).or_default().add(timing);
                }
            }
        }
    }

    pub(super) fn read(&self) -> Vec<BatchStatistics> {
        let mut read = Vec::new();
        let mut note = |batch_size, counted: &TimedCompute| {
            let compute_input = counted.input.read();
            let (compute_infer, compute_output) = (counted.infer.read(), counted.output.read());
            if compute_input.count > 0 {
                read.push(BatchStatistics { batch_size, compute_input, compute_infer, compute_output });
            }
        };
        self.small.iter().for_each(|(size, counted)| note(size, counted));
        self.large.lock().iter().for_each(|(size, counted)| note(*size, counted));
        read
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_size_is_counted_by_itself(sizes in proptest::collection::vec(prop_oneof![0u64..70, 4000..4200u64, Just(u64::MAX)], 0..60)) {
            let tallies = BatchTallies::default();
            let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
            for size in sizes {
                tallies.add(size, &ComputeTiming { infer: Duration::from_nanos(size), ..ComputeTiming::default() });
                *expected.entry(size.max(1)).or_default() += 1;
            }
            let read: Vec<_> = tallies.read().iter().map(|batch| (batch.batch_size, batch.compute_infer.count)).collect();
            prop_assert_eq!(read, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn large_sizes_are_bounded() {
        let tallies = BatchTallies::default();
        (0..3000).for_each(|number| tallies.add(5000 + number, &ComputeTiming::default()));
        tallies.add(5000, &ComputeTiming::default());
        let read = tallies.read();
        assert_eq!((read.len(), read[0].compute_infer.count), (MAX_LARGE_SIZES, 2));
    }
}

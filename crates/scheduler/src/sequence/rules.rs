//! What bounds the sequences of a model and their batches; pure.

use std::time::Duration;

use inference::{ModelSpec, SequenceStrategy};

use crate::batcher;

/// The rules of one model.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// How many sequences an instance has at a time; at least 1.
    pub(crate) slots: usize,
    /// How long a sequence may have nothing waiting or running.
    pub(crate) max_idle: Duration,
    pub(crate) strategy: Strategy,
}

/// Which of the requests that can run form a batch.
#[derive(Clone, Debug)]
pub(crate) enum Strategy {
    /// A slot is a row of the batch.
    Direct {
        /// How many slots must have a request for a batch to start at once; at least 1.
        enough: usize,
        /// How long a request waits for that.
        delay: Duration,
    },
    /// Those that came first, as dynamic batching has it.
    Oldest(batcher::Rules),
}

impl Rules {
    /// The rules of a model; `None` where its requests form no sequences.
    pub(crate) fn of(spec: &ModelSpec) -> Option<Rules> {
        let sequences = spec.sequence_batching.as_ref()?;
        let max_rows = spec.max_batch_size.max(1);
        let (slots, strategy) = match &sequences.strategy {
            SequenceStrategy::Direct { max_queue_delay, minimum_slot_utilization } => {
                let enough = enough(max_rows, *minimum_slot_utilization);
                (max_rows, Strategy::Direct { enough, delay: *max_queue_delay })
            }
            SequenceStrategy::Oldest {
                max_candidate_sequences,
                preferred_batch_sizes,
                max_queue_delay,
                preserve_ordering,
            } => {
                let preferred = preferred_batch_sizes.iter().copied().filter(|size| *size <= max_rows).collect();
                let (delay, in_order) = (*max_queue_delay, *preserve_ordering);
                let slots = if *max_candidate_sequences == 0 { max_rows } else { *max_candidate_sequences };
                (slots, Strategy::Oldest(batcher::Rules { max_rows, preferred, delay, adaptive: false, in_order }))
            }
        };
        Some(Rules { slots: slots as usize, max_idle: sequences.max_idle, strategy })
    }
}

/// The smallest number of slots that makes up the wanted part of all.
fn enough(slots: u32, utilization: f32) -> usize {
    // What is written as 0.3 is a little more as a float.
    let wanted = f64::from(utilization) * f64::from(slots) - 1e-3;
    (1..slots as usize).find(|count| *count as f64 >= wanted).unwrap_or(slots as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_slots_is_rounded_up() {
        let cases = [
            (4, 0.0, 1),
            (4, 0.25, 1),
            (4, 0.3, 2),
            (4, 0.5, 2),
            (4, 1.0, 4),
            (10, 0.3, 3),
            (10, 0.7, 7),
            (3, 0.6667, 2),
            (1, 1.0, 1),
            (1, 0.0, 1),
        ];
        for (slots, utilization, expected) in cases {
            assert_eq!(enough(slots, utilization), expected, "{utilization} of {slots}");
        }
    }
}

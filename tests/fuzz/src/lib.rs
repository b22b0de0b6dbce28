//! Fuzzing of everything that reads bytes of strangers: `cargo xtask fuzz`, and for a moment in the tests. A mutational
//! driver of its own, so that it needs no other compiler and no other tool.

mod allocation;
mod archive;
mod mutation;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

pub use targets::{TARGETS, Target};

use crate::allocation::Counting;
use crate::mutation::Mutator;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Inputs that were accepted and are mutated further.
const MAX_CORPUS: usize = 512;

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Inputs tried.
    pub tried: u64,
    /// Inputs that were accepted.
    pub accepted: u64,
    /// The most bytes that one input made the target hold at once, beyond the input.
    pub peak: usize,
}

/// Feeds a target for so long.
///
/// # Errors
/// The first input that made it panic or hold more memory than its bound, as text.
pub fn run(target: &Target, time: Duration, seed: u64) -> Result<Report, String> {
    let mut corpus = (target.seeds)();
    let mut mutator = Mutator::new(seed, target.words);
    let mut report = Report { tried: 0, accepted: 0, peak: 0 };
    let began = Instant::now();
    while began.elapsed() < time {
        let input = mutator.mutate(&corpus);
        let (outcome, peak) = allocation::peak_of(|| catch_unwind(AssertUnwindSafe(|| (target.read)(&input))));
        report.tried += 1;
        report.peak = report.peak.max(peak);
        let bound = target.fixed_bytes + target.bytes_per_byte * input.len();
        let shown = || format!("{}: input of {} bytes: {}", target.name, input.len(), input.escape_ascii());
        match outcome {
            Err(_) => return Err(format!("panic in {}", shown())),
            Ok(_) if peak > bound => return Err(format!("held {peak} bytes, bound {bound}, in {}", shown())),
            Ok(false) => {}
            Ok(true) => {
                report.accepted += 1;
                if corpus.len() < MAX_CORPUS {
                    corpus.push(input);
                } else {
                    let place = mutator.below(corpus.len());
                    corpus[place] = input;
                }
            }
        }
    }
    Ok(report)
}

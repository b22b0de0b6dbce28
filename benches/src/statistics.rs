//! Percentiles of one round and medians over rounds. Pure.

use std::time::Duration;

/// What one contender did in one round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Round {
    /// The median time of a call, in microseconds.
    pub p50: f64,
    /// The time that 90 % of calls stayed within, in microseconds.
    pub p90: f64,
    /// The time that 99 % of calls stayed within, in microseconds.
    pub p99: f64,
    /// Calls a second, of all clients together.
    pub per_second: f64,
    /// CPU time of the answering process for one call, in microseconds.
    pub cpu: f64,
}

impl Round {
    /// From the nanoseconds of calls, how many calls there were (some may not have been timed), and the CPU time that
    /// they took together within `elapsed`.
    pub fn of(mut nanoseconds: Vec<u32>, calls: u64, cpu: Duration, elapsed: Duration) -> Self {
        nanoseconds.sort_unstable();
        let calls = calls.max(1) as f64;
        Round {
            p50: percentile(&nanoseconds, 0.50),
            p90: percentile(&nanoseconds, 0.90),
            p99: percentile(&nanoseconds, 0.99),
            per_second: calls / elapsed.as_secs_f64(),
            cpu: cpu.as_secs_f64() * 1e6 / calls,
        }
    }

    /// The median of each figure by itself.
    pub fn median(rounds: &[Round]) -> Self {
        let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
        Round {
            p50: of(|round| round.p50),
            p90: of(|round| round.p90),
            p99: of(|round| round.p99),
            per_second: of(|round| round.per_second),
            cpu: of(|round| round.cpu),
        }
    }
}

/// The nearest-rank percentile of sorted nanoseconds, in microseconds.
fn percentile(sorted: &[u32], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |nanoseconds| f64::from(*nanoseconds) / 1e3)
}

/// The median; the mean of the middle two of an even number. Not a number when there is none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let upper = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[upper],
        _ => f64::midpoint(values[upper - 1], values[upper]),
    }
}

/// The smallest and the largest.
pub fn range(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    values.into_iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks_in_microseconds() {
        let nanoseconds = (1..=100).rev().map(|count| count * 1000).collect();
        let round = Round::of(nanoseconds, 200, Duration::from_millis(1), Duration::from_secs(2));
        let expected = Round { p50: 50.0, p90: 90.0, p99: 99.0, per_second: 100.0, cpu: 5.0 };
        assert_eq!(round, expected);
    }

    #[test]
    fn medians_and_ranges() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
        assert_eq!(range([3.0, 1.0, 2.0]), (1.0, 3.0));
    }
}

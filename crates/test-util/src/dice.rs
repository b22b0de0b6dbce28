//! Numbers by chance that are the same in every run: from a seed, on every machine.

use std::time::Duration;

/// A small generator of pseudo-random numbers (SplitMix64). It makes the traces behind the published table of eviction
/// policies: another generator would be another table.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Another series for each seed.
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, not including, 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 up to, not including, `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.share() * bound as f64) as usize
    }

    /// From `low` up to, not including, `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + (self.share() * (high - low) as f64) as u64
    }

    /// So many milliseconds, from `low` up to, not including, `high`.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// From an exponential distribution with this mean, as gaps between independent arrivals are.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.share()).ln()
    }
}

/// Zipf's law: the item of rank `r`, from 1, is drawn in proportion to `r` to the power of minus the exponent.
#[derive(Clone, Debug)]
pub struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    /// Over `0..count`, the first the most popular. The exponent says how steeply popularity falls.
    pub fn new(count: usize, exponent: f64) -> Self {
        let weights = (1..=count).map(|rank| (rank as f64).powf(-exponent));
        let cumulative = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Zipf { cumulative: cumulative.collect() }
    }

    /// One of `0..count`.
    pub fn draw(&self, dice: &mut Dice) -> usize {
        let drawn = dice.share() * self.cumulative.last().copied().unwrap_or(0.0);
        self.cumulative.partition_point(|sum| *sum <= drawn).min(self.cumulative.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        let mut dice = Dice::new(1_234_567);
        let published = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([dice.next(), dice.next(), dice.next()], published);
    }

    #[test]
    fn numbers_are_within_their_bounds_and_even() {
        let mut dice = Dice::new(1);
        let mut counts = [0; 5];
        for _ in 0..50_000 {
            counts[dice.below(5)] += 1;
            assert!((7..9).contains(&dice.between(7, 9)));
        }
        assert!(counts.iter().all(|count| (9_000..11_000).contains(count)), "{counts:?}");
        let mean = (0..50_000).map(|_| dice.exponential(3.0)).sum::<f64>() / 50_000.0;
        assert!((2.9..3.1).contains(&mean), "{mean}");
    }

    #[test]
    fn the_first_is_drawn_as_often_as_the_law_says() {
        let (zipf, mut dice) = (Zipf::new(100, 1.0), Dice::new(1));
        let draws: Vec<_> = (0..100_000).map(|_| zipf.draw(&mut dice)).collect();
        let share = |item| draws.iter().filter(|drawn| **drawn == item).count() as f64 / 1e5;
        // The sum of 1 / r up to 100 is 5.187.
        assert!((share(0) - 0.1928).abs() < 0.01 && (share(1) - 0.0964).abs() < 0.01, "{} {}", share(0), share(1));
        assert_eq!(draws.iter().max(), Some(&99));
    }
}

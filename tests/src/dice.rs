//! Numbers by chance that are the same in every run.

/// A xorshift generator.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Another series for each seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // The first numbers of neighbouring seeds are alike.
        for _ in 0..16 {
            dice.next();
        }
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// 0 to 1, without 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of `0..count`.
    pub fn below(&mut self, count: usize) -> usize {
        (self.share() * count as f64) as usize
    }
}

/// Zipf's law with exponent 1: the item of rank `r` is asked for `1 / r` as often as the first.
#[derive(Clone, Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// Over `0..count`, the first the most popular.
    pub fn new(count: usize) -> Self {
        let mut sum = 0.0;
        Zipf(
            (1..=count)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
        )
    }

    /// One of `0..count`.
    pub fn draw(&self, dice: &mut Dice) -> usize {
        let at = dice.share() * self.0.last().copied().unwrap_or_default();
        self.0.partition_point(|sum| *sum <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_drawn_as_often_as_the_law_says() {
        let (zipf, mut dice) = (Zipf::new(100), Dice::new(1));
        let draws: Vec<_> = (0..100_000).map(|_| zipf.draw(&mut dice)).collect();
        let share = |item| draws.iter().filter(|drawn| **drawn == item).count() as f64 / 1e5;
        // The sum of 1 / r up to 100 is 5.187.
        assert!((share(0) - 0.1928).abs() < 0.01 && (share(1) - 0.0964).abs() < 0.01, "{} {}", share(0), share(1));
        assert_eq!(draws.iter().max(), Some(&99));
    }
}

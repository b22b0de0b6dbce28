//! Traces made up from a seed: the same every time, on every machine.

use std::time::Duration;

use super::trace::{Access, Archive, Trace};

/// How many archives there are.
const ARCHIVES: usize = 1000;
/// How many of them a nightly run goes through.
const SCANNED: usize = ARCHIVES;
/// Mean time between requests.
const GAP: Duration = Duration::from_millis(250);
/// How steeply popularity falls.
const ZIPF_EXPONENT: f64 = 0.9;
/// In a shifting trace popularity is dealt anew, for a tenth of the archives, this often.
const SHIFT_EVERY: usize = 2_000;
/// Requests between two nightly runs.
const NIGHT_EVERY: usize = 20_000;

/// A small generator of pseudo-random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From 0 up to, not including, `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.unit() * bound as f64) as usize
    }
}

/// Archives as a mixed store has them: most are small and load quickly, some are large, and load time follows size only
/// roughly (a small Python model may take longer than a large network).
pub fn archives(random: &mut Random) -> Vec<Archive> {
    let archive = |index| {
        // 2 MB to 2 GB, evenly by order of magnitude.
        let bytes = 2e6 * 10f64.powf(3.0 * random.unit());
        let load_seconds = (0.02 + bytes / 400e6) * 10f64.powf(1.2 * random.unit() - 0.4);
        Archive { name: format!("{index}.tar.gz"), bytes: bytes as u64, load_seconds }
    };
    (0..ARCHIVES).map(archive).collect()
}

/// Draws ranks by Zipf's law.
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(count: usize) -> Self {
        let weights = (1..=count).map(|rank| (rank as f64).powf(-ZIPF_EXPONENT));
        let cumulative: Vec<f64> = weights
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        Zipf { cumulative }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let drawn = random.unit() * self.cumulative.last().copied().unwrap_or(0.0);
        self.cumulative.partition_point(|sum| *sum <= drawn).min(self.cumulative.len() - 1)
    }
}

/// Who is popular: the archive of each rank.
fn popularity(random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ARCHIVES).collect();
    for index in (1..order.len()).rev() {
        order.swap(index, random.below(index + 1));
    }
    order
}

fn timed(archives: Vec<Archive>, asked: impl Iterator<Item = usize>, random: &mut Random) -> Trace {
    let mut at = Duration::ZERO;
    let accesses = asked
        .map(|archive| {
            at += GAP.mul_f64(-(1.0 - random.unit()).ln());
            Access { at, archive }
        })
        .collect();
    Trace { archives, accesses }
}

/// Popularity by Zipf's law, the same all the time.
pub fn zipf(seed: u64, requests: usize) -> Trace {
    let mut random = Random::new(seed);
    let (archives, order, zipf) = (archives(&mut random), popularity(&mut random), Zipf::new(ARCHIVES));
    let asked: Vec<usize> = (0..requests).map(|_| order[zipf.draw(&mut random)]).collect();
    timed(archives, asked.into_iter(), &mut random)
}

/// The same, but now and then some archives change places.
pub fn zipf_shifting(seed: u64, requests: usize) -> Trace {
    let mut random = Random::new(seed);
    let (archives, mut order, zipf) = (archives(&mut random), popularity(&mut random), Zipf::new(ARCHIVES));
    let mut asked = Vec::with_capacity(requests);
    for request in 0..requests {
        if request % SHIFT_EVERY == SHIFT_EVERY - 1 {
            for _ in 0..ARCHIVES / 20 {
                // One from among the popular changes places with any.
                let (popular, any) = (random.below(ARCHIVES / 10), random.below(ARCHIVES));
                order.swap(popular, any);
            }
        }
        asked.push(order[zipf.draw(&mut random)]);
    }
    timed(archives, asked.into_iter(), &mut random)
}

/// Popularity by Zipf's law, and a nightly run through all archives, one after the other.
pub fn nightly_scan(seed: u64, requests: usize) -> Trace {
    let mut random = Random::new(seed);
    let (archives, order, zipf) = (archives(&mut random), popularity(&mut random), Zipf::new(ARCHIVES));
    let mut asked = Vec::with_capacity(requests + requests / NIGHT_EVERY * SCANNED);
    for request in 0..requests {
        if request % NIGHT_EVERY == NIGHT_EVERY / 2 {
            asked.extend(0..SCANNED);
        }
        asked.push(order[zipf.draw(&mut random)]);
    }
    timed(archives, asked.into_iter(), &mut random)
}

/// All archives in turn, over and over: more than fits, and always what was used longest ago.
pub fn cyclic(seed: u64, requests: usize) -> Trace {
    let mut random = Random::new(seed);
    let archives = archives(&mut random);
    timed(archives, (0..requests).map(|request| request % ARCHIVES), &mut random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_trace() {
        for generate in [zipf, zipf_shifting, nightly_scan, cyclic] {
            let trace = generate(7, 30_000);
            assert_eq!(trace, generate(7, 30_000));
            assert!(trace.accesses.is_sorted_by_key(|access| access.at));
            assert!(trace.accesses.len() >= 30_000);
        }
        assert_ne!(zipf(7, 1000), zipf(8, 1000));
    }

    #[test]
    fn some_are_far_more_popular_than_others() {
        let trace = zipf(7, 100_000);
        let mut counts = vec![0usize; trace.archives.len()];
        trace.accesses.iter().for_each(|access| counts[access.archive] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let of_first_tenth: usize = counts[..ARCHIVES / 10].iter().sum();
        assert!((50_000..80_000).contains(&of_first_tenth), "{of_first_tenth}");
    }
}

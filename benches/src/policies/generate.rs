//! Traces made up from a seed: the same every time, on every machine.

use std::time::Duration;

use test_util::dice::{Dice, Zipf};

use super::trace::{Access, Archive, Trace};

/// How many archives there are.
const ARCHIVES: usize = 1000;
/// Mean time between requests.
const GAP: Duration = Duration::from_millis(250);
/// How steeply popularity falls.
const ZIPF_EXPONENT: f64 = 0.9;
/// In a shifting trace popularity is dealt anew, for a tenth of the archives, this often.
const SHIFT_EVERY: usize = 2_000;
/// Requests between two nightly runs.
const NIGHT_EVERY: usize = 20_000;

/// Archives as a mixed store has them: most are small and load quickly, some are large, and load time follows size only
/// roughly (a small Python model may take longer than a large network).
pub fn archives(dice: &mut Dice) -> Vec<Archive> {
    let archive = |index| {
        // 2 MB to 2 GB, evenly by order of magnitude.
        let bytes = 2e6 * 10f64.powf(3.0 * dice.share());
        let load_seconds = (0.02 + bytes / 400e6) * 10f64.powf(1.2 * dice.share() - 0.4);
        Archive { name: format!("{index}.tar.gz"), bytes: bytes as u64, load_seconds }
    };
    (0..ARCHIVES).map(archive).collect()
}

/// Who is popular: the archive of each rank.
fn popularity(dice: &mut Dice) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ARCHIVES).collect();
    for index in (1..order.len()).rev() {
        order.swap(index, dice.below(index + 1));
    }
    order
}

fn timed(archives: Vec<Archive>, asked: impl Iterator<Item = usize>, dice: &mut Dice) -> Trace {
    let mut at = Duration::ZERO;
    let accesses = asked
        .map(|archive| {
            at += GAP.mul_f64(dice.exponential(1.0));
            Access { at, archive }
        })
        .collect();
    Trace { archives, accesses }
}

/// Popularity by Zipf's law, the same all the time.
pub fn zipf(seed: u64, requests: usize) -> Trace {
    let mut dice = Dice::new(seed);
    let (archives, order, zipf) = (archives(&mut dice), popularity(&mut dice), Zipf::new(ARCHIVES, ZIPF_EXPONENT));
    let asked: Vec<usize> = (0..requests).map(|_| order[zipf.draw(&mut dice)]).collect();
    timed(archives, asked.into_iter(), &mut dice)
}

/// The same, but now and then some archives change places.
pub fn zipf_shifting(seed: u64, requests: usize) -> Trace {
    let mut dice = Dice::new(seed);
    let (archives, mut order, zipf) = (archives(&mut dice), popularity(&mut dice), Zipf::new(ARCHIVES, ZIPF_EXPONENT));
    let mut asked = Vec::with_capacity(requests);
    for request in 0..requests {
        if request % SHIFT_EVERY == SHIFT_EVERY - 1 {
            for _ in 0..ARCHIVES / 20 {
                // One from among the popular changes places with any.
                let (popular, any) = (dice.below(ARCHIVES / 10), dice.below(ARCHIVES));
                order.swap(popular, any);
            }
        }
        asked.push(order[zipf.draw(&mut dice)]);
    }
    timed(archives, asked.into_iter(), &mut dice)
}

/// Popularity by Zipf's law, and a nightly run through all archives, one after the other.
pub fn nightly_scan(seed: u64, requests: usize) -> Trace {
    let mut dice = Dice::new(seed);
    let (archives, order, zipf) = (archives(&mut dice), popularity(&mut dice), Zipf::new(ARCHIVES, ZIPF_EXPONENT));
    let mut asked = Vec::with_capacity(requests + requests / NIGHT_EVERY * ARCHIVES);
    for request in 0..requests {
        if request % NIGHT_EVERY == NIGHT_EVERY / 2 {
            asked.extend(0..ARCHIVES);
        }
        asked.push(order[zipf.draw(&mut dice)]);
    }
    timed(archives, asked.into_iter(), &mut dice)
}

/// All archives in turn, over and over: more than fits, and always what was used longest ago.
pub fn cyclic(seed: u64, requests: usize) -> Trace {
    let mut dice = Dice::new(seed);
    let archives = archives(&mut dice);
    timed(archives, (0..requests).map(|request| request % ARCHIVES), &mut dice)
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

//! Predicts how long loads take, from what loads took. Pure.

mod line;
mod rate;

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use inference::TargetModel;
use lru::LruCache;

use self::line::Line;
use self::rate::Rate;

/// How many archives' own times are remembered; others are judged by their size.
const REMEMBERED_ARCHIVES: usize = 16_384;

/// How far a load has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Where its archive is, and in which version, is being found out.
    Looking,
    /// An archive of so many bytes comes from the store.
    Fetching { bytes: u64 },
    /// Models of so many bytes on disk are being loaded.
    Loading { bytes: u64 },
}

/// A measurement: so many bytes took so long, waits excluded.
#[derive(Clone, Copy, Debug)]
struct Took {
    bytes: u64,
    time: Duration,
}

/// What an archive took the last time.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    fetch: Option<Took>,
    load: Option<Took>,
}

/// What is known of all loads, done and under way.
pub(crate) struct Forecast {
    archives: LruCache<TargetModel, Known>,
    fetch_rate: Rate,
    load_rate: Rate,
    fetching: Line,
    loading: Line,
}

/// How long a load was expected to take when its stage began. Whoever has one stands in the stage's line, if it joined that,
/// until [`Forecast::leave`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    /// From `since` to the answer; `None` where nothing is known yet. Never too high by what is not known: unknown parts are
    /// left out.
    total: Option<Duration>,
    since: Instant,
    stage: Stage,
    /// This stage's own part, where it joined the stage's line with it.
    work: Option<Duration>,
}

impl Estimate {
    /// What is left of it; nothing once the load takes longer than expected.
    pub(crate) fn remaining(&self, now: Instant) -> Option<Duration> {
        self.total.map(|total| total.saturating_sub(now.saturating_duration_since(self.since)))
    }

    /// The same for whoever has left the stage's line, and stands in none.
    pub(crate) fn out_of_line(self) -> Self {
        Estimate { work: None, ..self }
    }
}

impl Forecast {
    /// Nothing is known. So many archives may be fetched and loaded at once.
    pub(crate) fn new(fetches: NonZeroUsize, loads: NonZeroUsize) -> Self {
        let remembered = REMEMBERED_ARCHIVES.try_into().expect("invariant: not zero");
        Forecast {
            archives: LruCache::new(remembered),
            fetch_rate: Rate::default(),
            load_rate: Rate::default(),
            fetching: Line::new(fetches),
            loading: Line::new(loads),
        }
    }

    /// A load enters a stage, behind those that are in it. Only a fetch that requests wait for stands in line before other
    /// fetches, as with the turns of downloads; loads go in order of arrival.
    pub(crate) fn enter(&mut self, target: &TargetModel, stage: Stage, is_waited_for: bool, now: Instant) -> Estimate {
        let known = self.archives.peek(target).copied().unwrap_or_default();
        let (line, own, later) = match stage {
            Stage::Looking => (None, None, known.load.map(|took| took.time)),
            Stage::Fetching { bytes } => {
                // How large it is once unpacked is not known: at least this.
                let load = known.load.map(|took| took.time).or_else(|| self.load_rate.time(bytes));
                (Some(&mut self.fetching), of_bytes(known.fetch, &self.fetch_rate, bytes), load)
            }
            Stage::Loading { bytes } => (Some(&mut self.loading), of_bytes(known.load, &self.load_rate, bytes), None),
        };
        let work = own.unwrap_or_default();
        let joins = is_waited_for || !matches!(stage, Stage::Fetching { .. });
        let (wait, joined) = match line {
            Some(line) if joins => (line.join(work), Some(work)),
            Some(line) => (line.wait(), None),
            None => (Duration::ZERO, None),
        };
        let is_known = own.is_some() || later.is_some();
        let total = is_known.then(|| wait.saturating_add(work).saturating_add(later.unwrap_or_default()));
        Estimate { total, since: now, stage, work: joined }
    }

    /// A load has left the stage that an estimate was made for.
    pub(crate) fn leave(&mut self, estimate: &Estimate) {
        let Some(work) = estimate.work else { return };
        match estimate.stage {
            Stage::Looking => {}
            Stage::Fetching { .. } => self.fetching.leave(work),
            Stage::Loading { .. } => self.loading.leave(work),
        }
    }

    /// An archive of `bytes` was fetched in `time`, waits for its turn excluded.
    pub(crate) fn fetched(&mut self, target: &TargetModel, bytes: u64, time: Duration) {
        self.fetch_rate.learn(bytes, time);
        self.known(target).fetch = Some(Took { bytes, time });
    }

    /// Models of `bytes` on disk were loaded in `time`, waits for a slot and for room excluded.
    pub(crate) fn loaded(&mut self, target: &TargetModel, bytes: u64, time: Duration) {
        self.load_rate.learn(bytes, time);
        self.known(target).load = Some(Took { bytes, time });
    }

    fn known(&mut self, target: &TargetModel) -> &mut Known {
        self.archives.get_or_insert_mut(target.clone(), Known::default)
    }
}

/// What an archive took itself, if it is still the same size; what archives of its size take otherwise.
fn of_bytes(known: Option<Took>, rate: &Rate, bytes: u64) -> Option<Duration> {
    known.filter(|took| took.bytes == bytes).map(|took| took.time).or_else(|| rate.time(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MIB: u64 = 1 << 20;

    fn target(name: &str) -> TargetModel {
        TargetModel::new(name).expect("valid")
    }

    fn forecast(fetches: usize, loads: usize) -> Forecast {
        Forecast::new(fetches.try_into().expect("not zero"), loads.try_into().expect("not zero"))
    }

    #[test]
    fn what_is_not_known_is_not_predicted() {
        let (mut forecast, now) = (forecast(1, 1), Instant::now());
        for stage in [Stage::Looking, Stage::Fetching { bytes: MIB }, Stage::Loading { bytes: MIB }] {
            let estimate = forecast.enter(&target("a"), stage, true, now);
            assert_eq!(estimate.remaining(now), None, "{stage:?}");
            forecast.leave(&estimate);
        }
    }

    #[test]
    fn an_archive_takes_what_it_took_the_last_time() {
        let (mut forecast, now) = (forecast(1, 1), Instant::now());
        forecast.fetched(&target("a"), 10 * MIB, 8 * SECOND);
        forecast.loaded(&target("a"), 20 * MIB, 4 * SECOND);
        let mut remaining = |stage, after| {
            let estimate = forecast.enter(&target("a"), stage, true, now);
            forecast.leave(&estimate);
            estimate.remaining(now + after)
        };
        assert_eq!(remaining(Stage::Looking, Duration::ZERO), Some(4 * SECOND), "perhaps it is on disk");
        assert_eq!(remaining(Stage::Fetching { bytes: 10 * MIB }, SECOND), Some(11 * SECOND));
        assert_eq!(remaining(Stage::Loading { bytes: 20 * MIB }, SECOND), Some(3 * SECOND));
        assert_eq!(remaining(Stage::Loading { bytes: 20 * MIB }, 9 * SECOND), Some(Duration::ZERO), "it is late");
    }

    #[test]
    fn an_unknown_archive_takes_what_its_bytes_take() {
        let (mut forecast, now) = (forecast(1, 1), Instant::now());
        forecast.fetched(&target("a"), 100 * MIB, 10 * SECOND);
        let estimate = forecast.enter(&target("b"), Stage::Fetching { bytes: 300 * MIB }, true, now);
        let seconds = estimate.remaining(now).expect("predicted").as_secs();
        assert!((29..=30).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_load_waits_for_those_before_it() {
        let (mut forecast, now) = (forecast(1, 1), Instant::now());
        let names = ["a", "b", "c"];
        for name in names {
            forecast.loaded(&target(name), MIB, 4 * SECOND);
        }
        let load = Stage::Loading { bytes: MIB };
        let [first, second, third] = names.map(|name| forecast.enter(&target(name), load, true, now));
        let remaining = |estimate: &Estimate| estimate.remaining(now).expect("known").as_secs();
        // What is under way is taken to be half done.
        assert_eq!([&first, &second, &third].map(remaining), [4, 6, 10]);
        [&first, &second, &third].into_iter().for_each(|estimate| forecast.leave(estimate));
        let alone = forecast.enter(&target("a"), load, true, now);
        assert_eq!(remaining(&alone), 4, "the line is empty again");
    }

    #[test]
    fn what_nobody_waits_for_fetches_behind_what_somebody_does() {
        let (mut forecast, now) = (forecast(1, 1), Instant::now());
        forecast.fetched(&target("a"), 10 * MIB, 8 * SECOND);
        let fetch = Stage::Fetching { bytes: 10 * MIB };
        let prefetches = [(); 100].map(|()| forecast.enter(&target("a"), fetch, false, now));
        assert_eq!(prefetches[99].remaining(now), Some(8 * SECOND));
        let first = forecast.enter(&target("a"), fetch, true, now);
        assert_eq!(first.remaining(now), Some(8 * SECOND), "prefetches do not stand in its way");
        let second = forecast.enter(&target("a"), fetch, true, now);
        assert_eq!(second.remaining(now), Some(12 * SECOND));
        prefetches.iter().for_each(|prefetch| forecast.leave(prefetch));
        let third = forecast.enter(&target("a"), fetch, true, now);
        assert_eq!(third.remaining(now), Some(20 * SECOND), "who was not in line left it as it was");
    }

    proptest! {
        #[test]
        fn more_ahead_never_makes_it_shorter(
            learned in proptest::collection::vec((0u64..1 << 40, 0u64..100_000), 1..20),
            bytes in proptest::collection::vec(0u64..1 << 40, 1..20),
            slots in 1usize..5,
        ) {
            let (mut forecast, now) = (forecast(slots, slots), Instant::now());
            for (bytes, milliseconds) in learned {
                forecast.loaded(&target("known"), bytes, Duration::from_millis(milliseconds));
            }
            let last = Stage::Loading { bytes: 12_345 };
            let alone = forecast.enter(&target("new"), last, true, now);
            forecast.leave(&alone);
            let ahead: Vec<Estimate> =
                bytes.iter().map(|bytes| forecast.enter(&target("new"), Stage::Loading { bytes: *bytes }, true, now)).collect();
            let behind = forecast.enter(&target("new"), last, true, now);
            prop_assert!(behind.remaining(now) >= alone.remaining(now));
            ahead.iter().chain([&behind]).for_each(|estimate| forecast.leave(estimate));
            let again = forecast.enter(&target("new"), last, true, now);
            prop_assert_eq!(again.remaining(now), alone.remaining(now));
        }
    }
}

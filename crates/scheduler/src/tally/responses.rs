//! Responses to requests of a decoupled model, by their place among those of their request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use inference::{ComputeTiming, Error, ErrorKind, ResponseStatistics};
use tokio::time::Instant;

use super::segments::Segments;
use super::{Tally, Timed};

/// What became of the responses of one place.
#[derive(Debug, Default)]
struct Place {
    compute_infer: Timed,
    compute_output: Timed,
    success: Timed,
    fail: Timed,
    empty: Timed,
    cancel: Timed,
}

/// Counters by place. The first 4095 places are told apart; what comes later is not counted here.
#[derive(Debug, Default)]
pub(super) struct ResponseTallies(Segments<Place>);

impl ResponseTallies {
    fn add(&self, place: u64, what: What, took: Duration) {
        // Numbers begin at 1 there, places at 0.
        let Some(counted) = self.0.of(place.saturating_add(1)) else { return };
        match what {
            What::Success { output } => {
                counted.compute_infer.add(took);
                counted.compute_output.add(output);
                counted.success.add(took.saturating_add(output));
            }
            What::Fail => {
                counted.compute_infer.add(took);
                counted.fail.add(took);
            }
            What::Empty => {
                counted.compute_infer.add(took);
                counted.empty.add(took);
            }
            What::Cancel => counted.cancel.add(took),
        }
    }

    pub(super) fn read(&self) -> BTreeMap<u64, ResponseStatistics> {
        let read = |(number, of): (u64, &Place)| {
            let statistics = ResponseStatistics {
                compute_infer: of.compute_infer.read(),
                compute_output: of.compute_output.read(),
                success: of.success.read(),
                fail: of.fail.read(),
                empty_response: of.empty.read(),
                cancel: of.cancel.read(),
            };
            (statistics != ResponseStatistics::default()).then_some((number - 1, statistics))
        };
        self.0.iter().filter_map(read).collect()
    }
}

/// What became of a response that took so long to compute.
#[derive(Clone, Copy, Debug)]
enum What {
    Success { output: Duration },
    Fail,
    Empty,
    Cancel,
}

/// Counts the responses to one request as they come. Dropped before the end is told, it counts the one that was awaited as
/// cancelled.
pub(crate) struct ResponseCount {
    tally: Arc<Tally>,
    place: u64,
    /// When the model began to work on the next one.
    since: Instant,
    is_open: bool,
}

impl ResponseCount {
    /// A request begins to run.
    pub(crate) fn begin(tally: Arc<Tally>) -> Self {
        ResponseCount { tally, place: 0, since: Instant::now(), is_open: true }
    }

    /// How long the model has worked on the next response.
    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// A response has come. One that `is_final` has none behind it that would only say so.
    pub(crate) fn came(&mut self, timing: &ComputeTiming, is_empty: bool, is_final: bool) {
        match is_empty {
            true => self.add(What::Empty, self.elapsed()),
            false => self.add(What::Success { output: timing.output }, timing.infer),
        }
        (self.place, self.since) = (self.place.saturating_add(1), Instant::now());
        self.is_open = !is_final;
    }

    /// No more will come. Where no response has said so itself, the end counts as one without outputs, as in Triton.
    pub(crate) fn ended(&mut self) {
        self.close(What::Empty);
    }

    /// The request has failed.
    pub(crate) fn failed(&mut self, error: &Error) {
        self.is_open = true;
        self.close(if error.kind() == ErrorKind::Cancelled { What::Cancel } else { What::Fail });
    }

    fn close(&mut self, what: What) {
        if std::mem::take(&mut self.is_open) {
            self.add(what, self.elapsed());
        }
    }

    fn add(&self, what: What, took: Duration) {
        self.tally.responses.add(self.place, what, took);
    }
}

impl Drop for ResponseCount {
    fn drop(&mut self) {
        self.close(What::Cancel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of success, fail, empty and cancel, by place.
    fn counts(tally: &Tally) -> Vec<(u64, [u64; 4])> {
        let of = |of: &ResponseStatistics| [of.success, of.fail, of.empty_response, of.cancel].map(|timed| timed.count);
        tally.responses.read().iter().map(|(place, statistics)| (*place, of(statistics))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_response_counts_once_in_its_place() {
        let tally = Arc::new(Tally::default());
        let ms = Duration::from_millis;
        let timing = ComputeTiming { input: ms(1), infer: ms(5), output: ms(2) };
        let begin = || ResponseCount::begin(tally.clone());

        let mut ended = begin();
        ended.came(&timing, false, false);
        ended.came(&timing, false, false);
        ended.ended();
        let mut said = begin();
        said.came(&timing, false, true);
        said.ended();
        let mut failed = begin();
        failed.came(&timing, true, false);
        failed.failed(&Error::internal("broke"));
        begin().failed(&Error::new(ErrorKind::Cancelled, "gone"));
        let dropped = begin();
        tokio::time::advance(ms(7)).await;
        drop((ended, said, failed, dropped));

        assert_eq!(counts(&tally), [(0, [2, 0, 1, 2]), (1, [1, 1, 0, 0]), (2, [0, 0, 1, 0])]);
        let first = tally.responses.read()[&0];
        assert_eq!((first.success.total, first.compute_output.total), (ms(14), ms(4)));
        assert_eq!((first.compute_infer.total, first.compute_infer.count), (ms(10), 3));
        assert_eq!(first.cancel.total, ms(7));
    }

    #[test]
    fn late_places_take_no_room() {
        let tallies = ResponseTallies::default();
        for place in [0, 4094, 4095, u64::MAX] {
            tallies.add(place, What::Fail, Duration::ZERO);
        }
        assert_eq!(tallies.read().keys().copied().collect::<Vec<_>>(), [0, 4094]);
    }
}

//! The adaptive mode: learns how fast requests come and what batches cost, and from that how long one should wait for the
//! next; pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use super::signature::Signature;

/// How much one observation moves an average.
const STEP: f64 = 0.05;
/// How much one gap moves the typical gap, up or down; equal steps make it the median.
const MEDIAN_STEP: f64 = 1.1;
/// For how many typical gaps the next request is waited for.
const PATIENCE: f64 = 2.0;
/// So many signatures are followed; one that comes back after others took its place counts as new.
const MOST_SIGNATURES: usize = 64;

/// What has been learned of one model.
///
/// All times are in seconds. A value is `None` until there is something to learn from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    last: Option<Instant>,
    /// The mean gap between requests, whatever their shapes.
    mean_gap: Option<f64>,
    /// The median gap between requests that may share a batch. Bursts make it far shorter than the mean.
    typical_gap: Option<f64>,
    /// When a batch last ended, and the median time from then to the next request: that of clients who ask again.
    ended: Option<Instant>,
    return_gap: Option<f64>,
    last_alike: HashMap<u64, Instant>,
    rows: Option<f64>,
    cost: Cost,
}

/// A straight line through what batches cost, by rows: older ones count for less.
#[derive(Clone, Debug, Default)]
struct Cost {
    weight: f64,
    rows: f64,
    seconds: f64,
    rows_squared: f64,
    rows_seconds: f64,
}

/// The requests of a batch that could run now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathered {
    pub(super) requests: usize,
    /// When the last of them came.
    pub(super) latest: Instant,
}

impl Pace {
    /// A request of so many rows came.
    pub(crate) fn arrived(&mut self, signature: &Signature, rows: u32, at: Instant) {
        self.rows = Some(average(self.rows, f64::from(rows)));
        let before = self.last.replace(at);
        if let Some(last) = before {
            self.mean_gap = Some(average(self.mean_gap, at.saturating_duration_since(last).as_secs_f64()));
        }
        let mut hasher = DefaultHasher::new();
        signature.hash(&mut hasher);
        if self.last_alike.len() >= MOST_SIGNATURES {
            self.last_alike.clear();
        }
        if let Some(last) = self.last_alike.insert(hasher.finish(), at) {
            self.typical_gap = Some(median(self.typical_gap, seconds(last, at)));
        }
        if let Some(ended) = self.ended.filter(|ended| before.is_none_or(|before| before <= *ended)) {
            self.return_gap = Some(median(self.return_gap, seconds(ended, at)));
        }
    }

    /// A batch of so many rows took so long, until `now`.
    pub(crate) fn ran(&mut self, rows: u32, took: Duration, now: Instant) {
        self.cost.observe(f64::from(rows), took.as_secs_f64());
        self.ended = Some(now);
    }

    /// Until when the next request should be waited for; `None` to start at once.
    ///
    /// Waiting for one more delays those that are there by the wait, and by its rows, which would otherwise run after them.
    /// It saves what a batch costs however small it is. Both count as far as the model is busy: while it is not, nobody
    /// needs the time that is saved; and once it always is, the rows are work that delays somebody in any case.
    pub(super) fn wait_until(&self, gathered: &Gathered) -> Option<Instant> {
        let (fixed, per_row) = self.cost.line()?;
        let (mean_gap, typical_gap, rows) = (self.mean_gap?.max(1e-9), self.typical_gap?, self.rows?);
        let (from, gap) = match self.ended {
            Some(ended) if ended > gathered.latest => (ended, self.return_gap.unwrap_or(0.0).max(typical_gap)),
            _ => (gathered.latest, typical_gap),
        };
        let wait = gap * PATIENCE;
        let requests = gathered.requests as f64;
        let busy = ((fixed + per_row * rows) / mean_gap).min(1.0);
        let price = (requests + 1.0) * wait + (1.0 - busy) * requests * rows * per_row;
        if price >= fixed * busy {
            return None;
        }
        from.checked_add(Duration::try_from_secs_f64(wait).ok()?)
    }
}

impl Cost {
    fn observe(&mut self, rows: f64, seconds: f64) {
        let add = |sum: &mut f64, value: f64| *sum = *sum * (1.0 - STEP) + value * STEP;
        add(&mut self.weight, 1.0);
        add(&mut self.rows, rows);
        add(&mut self.seconds, seconds);
        add(&mut self.rows_squared, rows * rows);
        add(&mut self.rows_seconds, rows * seconds);
    }

    /// What a batch costs, and what each row of it adds. As long as all batches were of one size, half of the cost is taken
    /// to be the batch's: then larger ones are tried where requests come fast, and tell.
    fn line(&self) -> Option<(f64, f64)> {
        if self.weight <= 0.0 || self.rows <= 0.0 {
            return None;
        }
        let (rows, seconds) = (self.rows / self.weight, self.seconds / self.weight);
        let variance = self.rows_squared / self.weight - rows * rows;
        let covariance = self.rows_seconds / self.weight - rows * seconds;
        let per_row = if variance > 0.01 * rows { covariance / variance } else { seconds / rows / 2.0 };
        let per_row = per_row.clamp(0.0, seconds / rows);
        Some((seconds - per_row * rows, per_row))
    }
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64().max(1e-6)
}

/// A running median: one step towards the new value, and not past it.
fn median(old: Option<f64>, new: f64) -> f64 {
    match old {
        None => new,
        Some(old) if new > old => (old * MEDIAN_STEP).min(new),
        Some(old) => (old / MEDIAN_STEP).max(new),
    }
}

fn average(old: Option<f64>, new: f64) -> f64 {
    old.map_or(new, |old| old + (new - old) * STEP)
}

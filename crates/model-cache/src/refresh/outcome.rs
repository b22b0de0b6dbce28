//! How attempts to keep up with the store end, for metrics and the log.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckOutcome {
    /// The store still has what is in memory.
    Unchanged,
    /// The same, as a listing told.
    Listed,
    /// The store has another version.
    Changed,
    /// The store has no such archive any more.
    Missing,
    /// The store could not be asked.
    Failed,
}

impl CheckOutcome {
    const ALL: [CheckOutcome; 5] = [
        CheckOutcome::Unchanged,
        CheckOutcome::Listed,
        CheckOutcome::Changed,
        CheckOutcome::Missing,
        CheckOutcome::Failed,
    ];

    const fn label(self) -> &'static str {
        match self {
            CheckOutcome::Unchanged => "unchanged",
            CheckOutcome::Listed => "listed",
            CheckOutcome::Changed => "changed",
            CheckOutcome::Missing => "missing",
            CheckOutcome::Failed => "failed",
        }
    }

    pub(crate) fn count(self) {
        counter!("panoply_refresh_checks_total", "outcome" => self.label()).increment(1);
    }
}

/// What became of an archive that the store has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The new version took the old one's place in one step.
    Replaced,
    /// Both did not fit: the old version was unloaded before the new one was loaded.
    ReplacedWithGap,
    /// It is gone from the store, and from memory.
    Deleted,
    /// The new version could not be fetched; the old one serves.
    FetchFailed,
    /// The new version could not be loaded; the old one serves.
    LoadFailed,
    /// Both do not fit; the old version serves.
    NoRoom,
    /// The old version is in the middle of sequences, and serves until they have ended.
    Busy,
    /// The old version was unloaded to make room, and neither the new one nor the old one could be loaded.
    Lost,
}

impl Outcome {
    const ALL: [Outcome; 8] = [
        Outcome::Replaced,
        Outcome::ReplacedWithGap,
        Outcome::Deleted,
        Outcome::FetchFailed,
        Outcome::LoadFailed,
        Outcome::NoRoom,
        Outcome::Busy,
        Outcome::Lost,
    ];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Outcome::Replaced => "replaced",
            Outcome::ReplacedWithGap => "replaced_with_gap",
            Outcome::Deleted => "deleted",
            Outcome::FetchFailed => "fetch_failed",
            Outcome::LoadFailed => "load_failed",
            Outcome::NoRoom => "no_room",
            Outcome::Busy => "busy",
            Outcome::Lost => "lost",
        }
    }

    pub(crate) fn count(self) {
        counter!("panoply_refreshes_total", "outcome" => self.label()).increment(1);
    }
}

/// Describes the metrics of this module.
pub(crate) fn describe_metrics() {
    describe_counter!(
        "panoply_refresh_checks_total",
        Unit::Count,
        "Archives in memory about which the store was asked in the background, by what it said (unchanged, listed: \
         unchanged as a listing told, changed, missing, failed)"
    );
    describe_counter!(
        "panoply_refreshes_total",
        Unit::Count,
        "Archives in memory that the store has replaced or deleted, by what became of them (replaced, replaced_with_gap, deleted; \
         the old version serves: fetch_failed, load_failed, no_room, busy; lost)"
    );
    describe_gauge!(
        "panoply_outdated_archives",
        Unit::Count,
        "Archives in memory of which the store has a newer version that could not be fetched or loaded"
    );
}

/// Makes every series exist from the start.
pub(crate) fn start_metrics() {
    for outcome in CheckOutcome::ALL {
        counter!("panoply_refresh_checks_total", "outcome" => outcome.label()).increment(0);
    }
    for outcome in Outcome::ALL {
        counter!("panoply_refreshes_total", "outcome" => outcome.label()).increment(0);
    }
    outdated(0);
}

/// Says of how many archives in memory the store has a version that does not serve.
pub(crate) fn outdated(count: usize) {
    gauge!("panoply_outdated_archives").set(count as f64);
}

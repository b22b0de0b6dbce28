//! What requests for models in memory feel of others being loaded: their durations, apart by whether that was so.

use std::time::Instant;

use metrics::{Histogram, Unit, describe_histogram, histogram};
use repository::{Background, Moment};

const NAME: &str = "panoply_resident_request_duration_seconds";

pub(crate) fn describe() {
    describe_histogram!(
        NAME,
        Unit::Seconds,
        "Duration of requests whose model was in memory, by whether anything was unpacked, loaded, unloaded or \
         deleted meanwhile; without streams"
    );
}

/// Records what requests feel.
pub(crate) struct Interference {
    background: Background,
    quiet: Histogram,
    disturbed: Histogram,
}

impl Interference {
    pub(crate) fn new(background: Background) -> Self {
        let with = |during_load| histogram!(NAME, "during_load" => during_load);
        Interference { background, quiet: with("false"), disturbed: with("true") }
    }

    /// A request that has just come.
    pub(crate) fn watch(&self) -> Watched<'_> {
        Watched { interference: self, began: Instant::now(), moment: self.background.activity().moment() }
    }
}

/// A request under way.
pub(crate) struct Watched<'a> {
    interference: &'a Interference,
    began: Instant,
    moment: Moment,
}

impl Watched<'_> {
    /// It has been answered.
    pub(crate) fn answered(self) {
        let Watched { interference: Interference { background, quiet, disturbed }, began, moment } = self;
        let histogram = if background.activity().was_busy_since(moment) { disturbed } else { quiet };
        histogram.record(began.elapsed());
    }
}

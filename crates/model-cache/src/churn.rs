//! Tells operators when more is asked for than memory holds, and how much more would hold it.

use std::time::{Duration, Instant};

use inference::MemoryUsage;
use metrics::{Unit, describe_gauge, gauge};
use parking_lot::Mutex;

use crate::loaded::LoadedArchive;
use crate::route::ArchiveKey;
use crate::working_set::{WINDOW, Warning, WorkingSet};

pub(crate) fn describe_metrics() {
    describe_gauge!(
        "panoply_working_set_bytes",
        Unit::Bytes,
        "Bytes that would hold what is in use on each device: what is held, and what came back within ten minutes after it had been evicted"
    );
    describe_gauge!(
        "panoply_memory_shortfall_bytes",
        Unit::Bytes,
        "Bytes by which each device's budget is too small for its working set; 0 when it fits"
    );
}

/// What memory holds at a moment.
pub(crate) struct Held {
    pub(crate) budget: MemoryUsage,
    pub(crate) used: MemoryUsage,
    pub(crate) archives: usize,
}

/// Watches what leaves and what comes back. Its lock is its own: no request takes it.
pub(crate) struct Churn(Mutex<WorkingSet>);

impl Churn {
    pub(crate) fn new() -> Self {
        Churn(Mutex::new(WorkingSet::new()))
    }

    /// An archive leaves because others need its room.
    pub(crate) fn evicted(&self, archive: &LoadedArchive, now: Instant) {
        self.0.lock().evicted(archive.key.clone(), archive.usage.clone(), now);
    }

    /// An archive was loaded, which took so long.
    pub(crate) fn loaded(&self, key: &ArchiveKey, load: Duration, held: &Held, now: Instant) {
        self.0.lock().loaded(key, load, held, now);
        self.tell(held, now);
    }

    /// Publishes the metrics, and warns if need be.
    pub(crate) fn tell(&self, held: &Held, now: Instant) {
        let mut working_set = self.0.lock();
        let shortfall = working_set.shortfall(now);
        let warning = working_set.warning(held.archives, now);
        drop(working_set);
        for (device, _) in held.budget.iter() {
            let (label, missing) = (device.to_string(), shortfall.get(device));
            gauge!("panoply_memory_shortfall_bytes", "device" => label.clone()).set(missing as f64);
            gauge!("panoply_working_set_bytes", "device" => label).set((held.used.get(device) + missing) as f64);
        }
        if let Some(warning) = warning {
            warn(&warning, held);
        }
    }
}

fn warn(warning: &Warning, held: &Held) {
    for (device, missing) in warning.shortfall.iter() {
        tracing::warn!(
            %device,
            budget_bytes = held.budget.get(device),
            shortfall_bytes = missing,
            returns = warning.returns,
            load_seconds = warning.load.as_secs_f64(),
            "more is asked for than fits: {} loads of the last {} minutes were of archives that had just been evicted; {missing} more \
             bytes of memory on {device} ({} in all) would have spared nine of ten of them (--model-memory, --gpu-memory)",
            warning.returns,
            WINDOW.as_secs() / 60,
            held.budget.get(device).saturating_add(missing),
        );
    }
}

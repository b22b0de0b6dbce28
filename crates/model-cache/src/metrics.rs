//! The model cache's metrics. Names carry their units; no label is a model's name.

use std::time::Duration;

use inference::{CacheTier, Device, ErrorKind, MemoryUsage};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::refresh;
use crate::residency::Residency;
use crate::room::UnloadReason;

/// Describes every metric of this crate to the recorder.
pub fn describe_metrics() {
    crate::churn::describe_metrics();
    refresh::describe_metrics();
    crate::interference::describe();
    describe_counter!(
        "panoply_cache_requests_total",
        Unit::Count,
        "Requests for archives by where their models were found: memory, disk or store"
    );
    describe_counter!(
        "panoply_missing_key_hits_total",
        Unit::Count,
        "Requests for archives that the store did not have a moment ago, answered without asking it again"
    );
    describe_counter!("panoply_model_loads_total", Unit::Count, "Archives loaded into memory, by where they came from");
    describe_counter!(
        "panoply_restored_models_total",
        Unit::Count,
        "Archives loaded at start because they were in memory when the server stopped"
    );
    describe_counter!("panoply_model_load_failures_total", Unit::Count, "Archives that could not be loaded, by reason");
    describe_histogram!(
        "panoply_model_load_duration_seconds",
        Unit::Seconds,
        "Time from an archive's files on disk to its models being ready"
    );
    describe_counter!("panoply_model_unloads_total", Unit::Count, "Archives unloaded from memory, by reason");
    describe_histogram!("panoply_model_unload_duration_seconds", Unit::Seconds, "Time to unload an archive");
    describe_counter!(
        "panoply_evictions_total",
        Unit::Count,
        "Archives that left a tier (memory, disk) without being asked to, by reason; the disk tier is the disk cache's"
    );
    describe_histogram!(
        "panoply_load_wait_duration_seconds",
        Unit::Seconds,
        "Time that a request waited for its archive to be loaded"
    );
    describe_gauge!("panoply_load_waiting_requests", Unit::Count, "Requests that wait for an archive to be loaded");
    describe_counter!("panoply_model_unload_failures_total", Unit::Count, "Archives whose unloading failed");
    describe_gauge!("panoply_resident_models", Unit::Count, "Models that hold memory on each device");
    describe_gauge!("panoply_resident_archives", Unit::Count, "Archives in memory");
    describe_gauge!(
        "panoply_resident_bytes",
        Unit::Bytes,
        "Bytes held by models on each device, loads under way included"
    );
    describe_counter!(
        "panoply_device_evictions_total",
        Unit::Count,
        "Archives that others needed the room of, by each device that they held memory of"
    );
    describe_counter!(
        "panoply_archive_moves_total",
        Unit::Count,
        "Archives that were evicted from a GPU and loaded on the host, or moved from the host to a GPU, by where they went"
    );
    describe_gauge!("panoply_memory_budget_bytes", Unit::Bytes, "Bytes that models may take on each device");
}

/// Records what happens to the cache as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CacheMetrics;

impl CacheMetrics {
    /// Makes every series of a closed set exist from the start, so that rates and alerts see the first event.
    pub(crate) fn start(self, residency: &Residency) {
        self.budget(residency.budget());
        for tier in [CacheTier::Memory, CacheTier::Disk, CacheTier::Store] {
            counter!("panoply_cache_requests_total", "tier" => tier.name()).increment(0);
            counter!("panoply_model_loads_total", "tier" => tier.name()).increment(0);
        }
        for reason in UnloadReason::ALL {
            counter!("panoply_model_unloads_total", "reason" => reason.label()).increment(0);
        }
        for reason in UnloadReason::ALL.into_iter().filter(|reason| reason.is_eviction()) {
            counter!("panoply_evictions_total", "tier" => "memory", "reason" => reason.label()).increment(0);
        }
        for kind in ErrorKind::ALL {
            counter!("panoply_model_load_failures_total", "reason" => kind.name()).increment(0);
        }
        for (device, _) in residency.budget().iter() {
            counter!("panoply_device_evictions_total", "device" => device.to_string()).increment(0);
            if residency.budget().iter().count() > 1 {
                counter!("panoply_archive_moves_total", "to" => device.to_string()).increment(0);
            }
        }
        counter!("panoply_model_unload_failures_total").increment(0);
        counter!("panoply_missing_key_hits_total").increment(0);
        counter!("panoply_restored_models_total").increment(0);
        self.used(residency);
    }

    pub(crate) fn budget(self, budget: &MemoryUsage) {
        for (device, bytes) in budget.iter() {
            gauge!("panoply_memory_budget_bytes", "device" => device.to_string()).set(bytes as f64);
        }
    }

    pub(crate) fn used(self, residency: &Residency) {
        for (device, _) in residency.budget().iter() {
            let label = device.to_string();
            gauge!("panoply_resident_bytes", "device" => label.clone()).set(residency.used(device) as f64);
            gauge!("panoply_resident_models", "device" => label).set(residency.models_on(device) as f64);
        }
        gauge!("panoply_resident_archives").set(residency.count() as f64);
    }

    pub(crate) fn found(self, tier: CacheTier) {
        counter!("panoply_cache_requests_total", "tier" => tier.name()).increment(1);
    }

    pub(crate) fn known_missing(self) {
        counter!("panoply_missing_key_hits_total").increment(1);
    }

    pub(crate) fn loaded(self, tier: CacheTier, elapsed: Duration) {
        counter!("panoply_model_loads_total", "tier" => tier.name()).increment(1);
        histogram!("panoply_model_load_duration_seconds").record(elapsed);
    }

    pub(crate) fn restored(self) {
        counter!("panoply_restored_models_total").increment(1);
    }

    pub(crate) fn load_failed(self, kind: ErrorKind) {
        counter!("panoply_model_load_failures_total", "reason" => kind.name()).increment(1);
    }

    pub(crate) fn unloaded(self, reason: UnloadReason, usage: &MemoryUsage, elapsed: Duration) {
        counter!("panoply_model_unloads_total", "reason" => reason.label()).increment(1);
        if reason == UnloadReason::Room {
            for (device, _) in usage.iter() {
                counter!("panoply_device_evictions_total", "device" => device.to_string()).increment(1);
            }
        }
        if reason.is_eviction() {
            counter!("panoply_evictions_total", "tier" => "memory", "reason" => reason.label()).increment(1);
        }
        histogram!("panoply_model_unload_duration_seconds").record(elapsed);
    }

    pub(crate) fn moved(self, to: Device) {
        counter!("panoply_archive_moves_total", "to" => to.to_string()).increment(1);
    }

    pub(crate) fn unload_failed(self) {
        counter!("panoply_model_unload_failures_total").increment(1);
    }

    pub(crate) fn waiting(self, change: f64) {
        gauge!("panoply_load_waiting_requests").increment(change);
    }

    pub(crate) fn waited(self, elapsed: Duration) {
        histogram!("panoply_load_wait_duration_seconds").record(elapsed);
    }
}

//! Triton's metrics of the response cache: of each model that uses it, and of the whole.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::metric::{ModelMetrics, micros};
use crate::metric_options::{Summaries, microseconds};
use crate::tally::Tally;

/// Counts hits and misses of one model. A hit is a successful request as well.
pub struct CacheMetrics {
    success: Counter,
    request_us: Counter,
    hits: Counter,
    hit_us: Counter,
    misses: Counter,
    miss_us: Counter,
    summaries: Option<CacheSummaries>,
    tally: Arc<Tally>,
}

/// Kept where the model's own summaries are.
struct CacheSummaries {
    hit: Histogram,
    miss: Histogram,
    model: Arc<Summaries>,
}

impl CacheMetrics {
    pub(super) fn new(model: &ModelMetrics) -> Self {
        let series = |name: &'static str| model.counter(name);
        CacheMetrics {
            success: series("nv_inference_request_success"),
            request_us: series("nv_inference_request_duration_us"),
            hits: series("nv_cache_num_hits_per_model"),
            hit_us: series("nv_cache_hit_duration_per_model"),
            misses: series("nv_cache_num_misses_per_model"),
            miss_us: series("nv_cache_miss_duration_per_model"),
            summaries: model.summaries().map(|summaries| CacheSummaries {
                hit: histogram!("nv_cache_hit_summary_per_model", model.labels()),
                miss: histogram!("nv_cache_miss_summary_per_model", model.labels()),
                model: summaries.clone(),
            }),
            tally: model.tally().clone(),
        }
    }

    /// A request was answered from the cache.
    pub(super) fn hit(&self, took: Duration) {
        self.success.increment(1);
        self.request_us.increment(micros(took));
        self.hits.increment(1);
        self.hit_us.increment(micros(took));
        self.tally.hit(took);
        if let Some(summaries) = &self.summaries {
            summaries.hit.record(microseconds(took));
            summaries.model.answered(took, Duration::ZERO, None);
        }
    }

    /// A request was not; `took` is the time for looking, and for putting the model's answer in.
    pub(super) fn missed(&self, took: Duration) {
        self.misses.increment(1);
        self.miss_us.increment(micros(took));
        self.tally.missed(took);
        if let Some(summaries) = &self.summaries {
            summaries.miss.record(microseconds(took));
        }
    }
}

/// The whole cache. These are gauges, although most of them only grow, because Triton has them so.
pub(super) struct WholeCacheMetrics {
    used: Gauge,
    entries: Gauge,
    hits: Gauge,
    misses: Gauge,
    lookups: Gauge,
    evictions: Gauge,
    lookup_us: Gauge,
    insertion_us: Gauge,
    copies: Counter,
}

impl WholeCacheMetrics {
    pub(super) fn new() -> Self {
        let gauge = |name: &'static str| {
            let gauge = gauge!(name);
            gauge.set(0.0);
            gauge
        };
        WholeCacheMetrics {
            used: gauge("nv_cache_util"),
            entries: gauge("nv_cache_num_entries"),
            hits: gauge("nv_cache_num_hits"),
            misses: gauge("nv_cache_num_misses"),
            lookups: gauge("nv_cache_num_lookups"),
            evictions: gauge("nv_cache_num_evictions"),
            lookup_us: gauge("nv_cache_lookup_duration"),
            insertion_us: gauge("nv_cache_insertion_duration"),
            copies: counter!("panoply_tensor_copies_total", "reason" => "response_cache"),
        }
    }

    pub(super) fn looked_up(&self, hit: bool, took: Duration) {
        self.lookups.increment(1.0);
        (if hit { &self.hits } else { &self.misses }).increment(1.0);
        self.lookup_us.increment(took.as_secs_f64() * 1e6);
    }

    pub(super) fn inserted(&self, took: Duration) {
        self.insertion_us.increment(took.as_secs_f64() * 1e6);
    }

    /// So many tensors of an answer were copied.
    pub(super) fn copied(&self, tensors: usize) {
        self.copies.increment(tensors as u64);
    }

    pub(super) fn evicted(&self, count: usize) {
        if count > 0 {
            self.evictions.increment(count as f64);
        }
    }

    pub(super) fn holds(&self, used: u64, capacity: u64, entries: usize) {
        self.used.set(used as f64 / capacity.max(1) as f64);
        self.entries.set(entries as f64);
    }
}

/// Describes these metrics to the recorder, in the words of Triton's own scrape.
pub(crate) fn describe_metrics() {
    for (name, description) in [
        ("nv_cache_num_hits_per_model", "Number of cache hits per model"),
        ("nv_cache_hit_duration_per_model", "Total cache hit duration per model, in microseconds"),
        ("nv_cache_num_misses_per_model", "Number of cache misses per model"),
        ("nv_cache_miss_duration_per_model", "Total cache miss (insert+lookup) duration per model, in microseconds"),
    ] {
        metrics::describe_counter!(name, description);
    }
    for (name, description) in [
        ("nv_cache_util", "Cache utilization [0.0 - 1.0]"),
        ("nv_cache_num_entries", "Number of responses stored in response cache"),
        ("nv_cache_num_hits", "Number of cache hits in response cache"),
        ("nv_cache_num_misses", "Number of cache misses in response cache"),
        ("nv_cache_num_lookups", "Number of cache lookups in response cache"),
        ("nv_cache_num_evictions", "Number of cache evictions in response cache"),
        ("nv_cache_lookup_duration", "Total cache lookup duration (hit and miss), in microseconds"),
        ("nv_cache_insertion_duration", "Total cache insertion duration, in microseconds"),
    ] {
        metrics::describe_gauge!(name, description);
    }
}

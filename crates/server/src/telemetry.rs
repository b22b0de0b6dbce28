//! The metrics recorder.

use crate::machine;
use crate::settings::MetricsSettings;
use anyhow::Result;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the buckets of every histogram of durations, in seconds: 100 µs to 10 min.
const SECONDS: [f64; 20] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 600.0,
];

/// Installs the recorder that every crate's metrics go to, describes them, and measures the machine from time to time.
///
/// # Errors
/// When a recorder is installed already.
pub(crate) fn start_metrics(settings: &MetricsSettings) -> Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?;
    // What has no buckets is a summary.
    let builder = builder.set_quantiles(&settings.quantiles)?;
    let handle = builder.install_recorder()?;
    repository::describe_metrics();
    scheduler::describe_metrics();
    model_cache::describe_metrics();
    backend_onnxruntime::describe_metrics();
    frontend::describe_metrics();
    if let Some(interval) = settings.cpu_interval {
        tokio::spawn(machine::measure(interval));
    }
    crate::trace_export::describe_metrics();
    Ok(handle)
}

//! Which metrics are kept and served, from Triton's options.

use std::time::Duration;

use scheduler::MetricOptions;

use crate::args::OperationArgs;

/// The quantiles of summaries that nobody chose others for; Triton's.
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.999];

/// Which metrics are kept and served.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricsSettings {
    /// Whether there is a metrics port.
    pub(crate) are_served: bool,
    /// How often the machine's CPU and memory are measured; `None` for never.
    pub(crate) cpu_interval: Option<Duration>,
    pub(crate) options: MetricOptions,
    /// Of summaries; each from 0 to 1.
    pub(crate) quantiles: Vec<f64>,
}

/// Reads the options; everything wrong comes along.
pub(super) fn settings(args: &OperationArgs) -> (MetricsSettings, Vec<String>) {
    let mut problems = Vec::new();
    let measures = args.allow_metrics && args.allow_cpu_metrics;
    let mut settings = MetricsSettings {
        are_served: args.allow_metrics,
        cpu_interval: measures.then_some(Duration::from_millis(args.metrics_interval_ms)),
        options: MetricOptions::default(),
        quantiles: QUANTILES.to_vec(),
    };
    if args.metrics_interval_ms == 0 {
        problems.push("--metrics-interval-ms must be more than 0".to_owned());
    }
    for setting in &args.metrics_config {
        if let Err(problem) = apply(&mut settings, setting) {
            problems.push(format!("--metrics-config {setting}: {problem}"));
        }
    }
    (settings, problems)
}

fn apply(settings: &mut MetricsSettings, setting: &str) -> Result<(), String> {
    let Some((key, value)) = setting.split_once('=') else { return Err("write KEY=VALUE".to_owned()) };
    match key {
        "summary_latencies" => settings.options.summaries = boolean(value)?,
        "summary_quantiles" => settings.quantiles = quantiles(value)?,
        "counter_latencies" if boolean(value)? => {}
        "counter_latencies" => return Err("the counters of latencies are always kept".to_owned()),
        "histogram_latencies" => settings.options.histograms = boolean(value)?,
        _ => {
            return Err(
                "there are summary_latencies, summary_quantiles, counter_latencies, histogram_latencies".to_owned()
            );
        }
    }
    Ok(())
}

fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("'{value}' is neither true nor false")),
    }
}

/// `0.5:0.05,0.9:0.01`. The error behind the colon is how wrong a quantile may be, in Triton; here it is checked and passed
/// over, since the recorder has an error of its own.
fn quantiles(value: &str) -> Result<Vec<f64>, String> {
    let one = |pair: &str| {
        let (quantile, error) = pair.split_once(':').unwrap_or((pair, "0"));
        let within = |text: &str| text.trim().parse().ok().filter(|number| (0.0..=1.0).contains(number));
        within(error).and(within(quantile)).ok_or_else(|| format!("'{pair}' is not like 0.99:0.001, both from 0 to 1"))
    };
    value.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply_all(given: &[&str]) -> Result<MetricsSettings, String> {
        let (cpu_interval, options) = (None, MetricOptions::default());
        let mut settings = MetricsSettings { are_served: true, cpu_interval, options, quantiles: QUANTILES.to_vec() };
        given.iter().try_for_each(|setting| apply(&mut settings, setting)).map(|()| settings)
    }

    #[test]
    fn metrics_are_configured_as_triton_is() {
        let given = [
            "summary_latencies=true",
            "summary_quantiles=0.5:0.05,0.75:0.001",
            "counter_latencies=true",
            "histogram_latencies=1",
        ];
        let settings = apply_all(&given).expect("right");
        assert!(settings.options.summaries && settings.options.histograms);
        assert!(!apply_all(&["histogram_latencies=false"]).expect("right").options.histograms);
        assert_eq!(settings.quantiles, [0.5, 0.75]);
        assert_eq!(apply_all(&[]).expect("nothing").quantiles, QUANTILES);
        for (wrong, part) in [
            ("summary_latencies", "KEY=VALUE"),
            ("summary_latencies=maybe", "neither true nor false"),
            ("summary_quantiles=2:0.1", "from 0 to 1"),
            ("summary_quantiles=0.5:x", "from 0 to 1"),
            ("nonsense=true", "summary_latencies"),
            ("counter_latencies=false", "always kept"),
            ("histogram_latencies=yes", "neither true nor false"),
        ] {
            let error = apply_all(&[wrong]).expect_err(wrong);
            assert!(error.contains(part), "{wrong}: {error}");
        }
    }
}

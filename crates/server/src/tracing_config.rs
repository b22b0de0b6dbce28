//! `--trace-config`: Triton's syntax for what is traced, and where and how spans are sent.

use std::str::FromStr;
use std::time::Duration;

use frontend::{TraceLevel, TraceSettings};

/// The mode that there is.
const MODE: &str = "opentelemetry";

/// Everything about tracing.
#[derive(Clone, Debug)]
pub(crate) struct TraceConfig {
    /// Which requests are traced at first.
    pub(crate) settings: TraceSettings,
    /// Where spans go; the environment's `OTEL_EXPORTER_OTLP_*` decide when not given.
    pub(crate) url: Option<String>,
    /// What the server is, for the collector.
    pub(crate) resource: Vec<(String, String)>,
    /// How many ended spans may wait to be sent.
    pub(crate) max_queue_size: usize,
    /// How many are sent at once at most.
    pub(crate) max_batch_size: usize,
    /// How long they wait for others.
    pub(crate) schedule_delay: Duration,
    /// How long sending may take.
    pub(crate) timeout: Duration,
}

/// One of OpenTelemetry's own variables, which every program with traces reads.
#[expect(clippy::disallowed_methods, reason = "these are no options of this server")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Default for TraceConfig {
    /// The defaults of OpenTelemetry's specification.
    fn default() -> Self {
        TraceConfig {
            settings: TraceSettings::default(),
            url: None,
            resource: Vec::new(),
            max_queue_size: 2048,
            max_batch_size: 512,
            schedule_delay: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
        }
    }
}

impl TraceConfig {
    /// Reads the option's entries over OpenTelemetry's own variables; what is wrong with them comes second.
    pub(crate) fn read(entries: &[String], variable: impl Fn(&str) -> Option<String>) -> (TraceConfig, Vec<String>) {
        let mut config = TraceConfig::default();
        let mut problems = Vec::new();
        let variables = [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "bsp_max_queue_size"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "bsp_max_export_batch_size"),
            ("OTEL_BSP_SCHEDULE_DELAY", "bsp_schedule_delay"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "timeout"),
        ];
        for (name, setting) in variables {
            if let Some(Err(problem)) = variable(name).map(|value| config.set(setting, value.trim())) {
                problems.push(format!("{name}: {problem}"));
            }
        }
        let mut levels = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.is_empty()) {
            if let Err(problem) = config.entry(entry, &mut levels) {
                problems.push(format!("--trace-config {entry}: {problem}"));
            }
        }
        if !levels.is_empty() {
            match TraceLevel::read(levels.iter().map(String::as_str)) {
                Ok(level) => config.settings.level = level,
                Err(error) => problems.push(format!("--trace-config: {error}")),
            }
        }
        if config.max_batch_size > config.max_queue_size {
            problems.push(format!(
                "--trace-config: bsp_max_export_batch_size ({}) must be at most bsp_max_queue_size ({})",
                config.max_batch_size, config.max_queue_size
            ));
        }
        (config, problems)
    }

    /// What is told about the export with the trace settings.
    pub(crate) fn details(&self) -> Vec<(String, String)> {
        let mut details = vec![
            ("bsp_max_queue_size".to_owned(), self.max_queue_size.to_string()),
            ("bsp_max_export_batch_size".to_owned(), self.max_batch_size.to_string()),
            ("bsp_schedule_delay".to_owned(), self.schedule_delay.as_millis().to_string()),
        ];
        details.extend(self.url.iter().map(|url| ("url".to_owned(), url.clone())));
        let resource: Vec<String> = self.resource.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !resource.is_empty() {
            details.push(("resource".to_owned(), resource.join(",")));
        }
        details
    }

    /// `name=value`, or `mode,name=value`.
    fn entry(&mut self, entry: &str, levels: &mut Vec<String>) -> Result<(), String> {
        let (scope, setting) = match entry.split_once(',') {
            Some((scope, setting)) if !scope.contains('=') => (Some(scope), setting),
            _ => (None, entry),
        };
        let (name, value) = setting.split_once('=').ok_or("expected name=value or mode,name=value")?;
        match (scope, name) {
            (None, "mode") if value == MODE => Ok(()),
            (None, "mode") => Err(format!("mode '{value}' is not there; the mode is {MODE}")),
            (None, "level") => {
                levels.push(value.to_owned());
                Ok(())
            }
            (None, "rate") => set(&mut self.settings.rate, TraceSettings::read_rate(value)),
            (None, "count") => set(&mut self.settings.count, TraceSettings::read_count(value)),
            (Some(MODE), _) => self.set(name, value),
            (Some(scope), _) => Err(format!("mode '{scope}' is not there; the mode is {MODE}")),
            (None, _) => Err("expected mode, level, rate, count, or opentelemetry,…".to_owned()),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "url" => self.url = Some(url(value)?),
            "resource" => {
                let (name, value) = value.split_once('=').ok_or("expected resource=name=value")?;
                self.resource.push((name.to_owned(), value.to_owned()));
            }
            "bsp_max_queue_size" => self.max_queue_size = positive(value)?,
            "bsp_max_export_batch_size" => self.max_batch_size = positive(value)?,
            "bsp_schedule_delay" => self.schedule_delay = Duration::from_millis(positive(value)?),
            "timeout" => self.timeout = Duration::from_millis(positive(value)?),
            _ => {
                return Err(
                    "expected url, resource, bsp_max_queue_size, bsp_max_export_batch_size, bsp_schedule_delay or \
                            timeout (both in milliseconds)"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

fn set<T>(place: &mut T, value: inference::Result<T>) -> Result<(), String> {
    *place = value.map_err(|error| error.to_string())?;
    Ok(())
}

/// As Triton, without a scheme it is `http://`.
fn url(value: &str) -> Result<String, String> {
    match value.split_once("://") {
        None => Ok(format!("http://{value}")),
        Some(("http", _)) => Ok(value.to_owned()),
        Some((scheme, _)) => {
            Err(format!("'{scheme}' is not supported; send spans to a collector nearby, by http:// (OTLP over HTTP)"))
        }
    }
}

fn positive<T: FromStr + PartialOrd + From<u8>>(value: &str) -> Result<T, String> {
    let number = value.parse().ok().filter(|number| *number > T::from(0));
    number.ok_or_else(|| format!("'{value}' is no number above 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[&str]) -> (TraceConfig, Vec<String>) {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        TraceConfig::read(&entries, |name| (name == "OTEL_BSP_SCHEDULE_DELAY").then(|| "250".to_owned()))
    }

    #[test]
    fn tritons_syntax_is_read() {
        let (config, problems) = read(&[
            "mode=opentelemetry",
            "rate=7",
            "count=-1",
            "level=TIMESTAMPS",
            "level=TENSORS",
            "opentelemetry,url=localhost:4318/v1/traces",
            "opentelemetry,resource=service.name=a=b",
            "opentelemetry,bsp_max_queue_size=600",
        ]);
        assert_eq!(problems, [""; 0]);
        let level = TraceLevel { timestamps: true, tensors: true };
        assert_eq!(config.settings, TraceSettings { level, rate: 7, count: None });
        assert_eq!(config.url.as_deref(), Some("http://localhost:4318/v1/traces"));
        assert_eq!(config.resource, [("service.name".to_owned(), "a=b".to_owned())]);
        assert_eq!((config.max_queue_size, config.schedule_delay), (600, Duration::from_millis(250)));
    }

    #[test]
    fn all_problems_are_found() {
        let bad = [
            "mode=triton",
            "triton,file=/tmp/t",
            "rate=0",
            "level=LOUD",
            "nonsense",
            "opentelemetry,url=https://x",
            "opentelemetry,bsp_max_queue_size=10",
            "opentelemetry,colour=red",
        ];
        let (_, problems) = read(&bad);
        assert_eq!(problems.len(), bad.len(), "{problems:#?}");
    }
}

//! The log: lines on standard error, whose levels and time format clients can change while the server runs.

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::SystemTime as Clock;

use anyhow::{Context as _, Result};
use frontend::{LogChange, LogControl, LogSettings, LogTime};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::LogFormat;

/// What is logged more of when a client raises the level: this server's own crates, not the libraries below them.
const OWN: [&str; 9] = [
    "panoply",
    "inference",
    "protocol",
    "repository",
    "scheduler",
    "model_cache",
    "backend_onnxruntime",
    "backend_text",
    "frontend",
];

/// Starts logging to standard error.
///
/// # Errors
/// When `directives` is no level and no list of directives.
pub(crate) fn start(directives: &str, format: LogFormat) -> Result<Arc<dyn LogControl>> {
    let filter = EnvFilter::try_new(directives).with_context(|| format!("--log '{directives}' is not understood"))?;
    let base = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
    let switches = Arc::new(Switches::at(base));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_timer(Time(switches.clone()));
    let reload: Reload = match format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().with(Gate(switches.clone())).init();
            Box::new(move |filter| handle.reload(filter))
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().with(Gate(switches.clone())).init();
            Box::new(move |filter| handle.reload(filter))
        }
    };
    Ok(Arc::new(Log { directives: directives.to_owned(), base, switches, reload }))
}

/// Puts a filter in place of the one before.
type Reload = Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

/// The log of this process.
struct Log {
    /// What `--log` says, and the most that it lets through.
    directives: String,
    base: LevelFilter,
    switches: Arc<Switches>,
    reload: Reload,
}

impl LogControl for Log {
    fn settings(&self) -> LogSettings {
        self.switches.settings()
    }

    fn change(&self, change: LogChange) {
        self.switches.set(change);
        let filter = filter(&self.directives, self.base, self.switches.level());
        // Also makes every place that logs ask anew. Fails only once the log is gone.
        if let Err(error) = (self.reload)(filter) {
            eprintln!("panoply: the log cannot be changed: {error}");
        }
    }
}

/// The server's own filter, with its own crates at `level` where that is more than the filter lets through.
fn filter(directives: &str, base: LevelFilter, level: LevelFilter) -> EnvFilter {
    let filter = EnvFilter::new(directives);
    if level <= base {
        return filter;
    }
    OWN.iter().fold(filter, |filter, target| {
        let directive: Directive = format!("{target}={level}").parse().expect("invariant: names of crates and levels");
        filter.add_directive(directive)
    })
}

/// What clients have set.
struct Switches {
    info: AtomicBool,
    warning: AtomicBool,
    error: AtomicBool,
    verbose_level: AtomicU32,
    whole_seconds: AtomicBool,
}

impl Switches {
    /// As they are when nobody has changed anything.
    fn at(base: LevelFilter) -> Self {
        Switches {
            info: AtomicBool::new(base >= LevelFilter::INFO),
            warning: AtomicBool::new(base >= LevelFilter::WARN),
            error: AtomicBool::new(base >= LevelFilter::ERROR),
            verbose_level: AtomicU32::new(
                u32::from(base >= LevelFilter::DEBUG) + u32::from(base >= LevelFilter::TRACE),
            ),
            whole_seconds: AtomicBool::new(false),
        }
    }

    fn set(&self, change: LogChange) {
        let LogChange { info, warning, error, verbose_level, time } = change;
        for (switch, value) in [
            (&self.info, info),
            (&self.warning, warning),
            (&self.error, error),
            (&self.whole_seconds, time.map(|time| time == LogTime::Iso8601)),
        ] {
            value.inspect(|value| switch.store(*value, Ordering::Relaxed));
        }
        verbose_level.inspect(|level| self.verbose_level.store(*level, Ordering::Relaxed));
    }

    fn settings(&self) -> LogSettings {
        let on = |switch: &AtomicBool| switch.load(Ordering::Relaxed);
        LogSettings {
            info: on(&self.info),
            warning: on(&self.warning),
            error: on(&self.error),
            verbose_level: self.verbose_level.load(Ordering::Relaxed),
            time: if on(&self.whole_seconds) { LogTime::Iso8601 } else { LogTime::Default },
        }
    }

    /// The most that is to be logged.
    fn level(&self) -> LevelFilter {
        let LogSettings { info, warning, verbose_level, .. } = self.settings();
        match verbose_level {
            2.. => LevelFilter::TRACE,
            1 => LevelFilter::DEBUG,
            0 if info => LevelFilter::INFO,
            0 if warning => LevelFilter::WARN,
            0 => LevelFilter::ERROR,
        }
    }

    fn lets(&self, level: Level) -> bool {
        let LogSettings { info, warning, error, verbose_level, .. } = self.settings();
        match level {
            Level::ERROR => error,
            Level::WARN => warning,
            Level::INFO => info,
            Level::DEBUG => verbose_level >= 1,
            Level::TRACE => verbose_level >= 2,
        }
    }
}

/// Lets through what the switches let.
struct Gate(Arc<Switches>);

impl<S: Subscriber> Layer<S> for Gate {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.0.lets(*metadata.level())
    }
}

/// The time in front of a line.
struct Time(Arc<Switches>);

impl FormatTime for Time {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        match self.0.settings().time {
            LogTime::Default => SystemTime.format_time(writer),
            LogTime::Iso8601 => write!(writer, "{}", humantime::format_rfc3339_seconds(Clock::now())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_let_their_levels_through() {
        let switches = Switches::at(LevelFilter::WARN);
        let lets = |switches: &Switches| {
            [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE].map(|level| switches.lets(level))
        };
        assert_eq!((lets(&switches), switches.level()), ([true, true, false, false, false], LevelFilter::WARN));
        switches.set(LogChange { info: Some(true), error: Some(false), ..LogChange::default() });
        assert_eq!((lets(&switches), switches.level()), ([false, true, true, false, false], LevelFilter::INFO));
        switches.set(LogChange { verbose_level: Some(1), ..LogChange::default() });
        assert_eq!((lets(&switches), switches.level()), ([false, true, true, true, false], LevelFilter::DEBUG));
        assert_eq!(Switches::at(LevelFilter::TRACE).settings().verbose_level, 2);
    }

    #[test]
    fn every_crate_of_this_server_is_known() {
        let workspace = include_str!("../../../Cargo.toml");
        let crates = workspace.lines().filter(|line| line.contains("{ path = \"crates/"));
        let names = crates.filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")));
        let served: Vec<_> = names.filter(|name| name != "test_util").collect();
        assert_eq!(OWN[0], "panoply");
        assert_eq!(served, OWN[1..], "name each crate in `OWN`, in the order of the workspace's Cargo.toml");
    }

    #[test]
    fn only_the_servers_own_crates_are_raised() {
        let filter = |level| filter("info,ort=warn", LevelFilter::INFO, level).to_string();
        assert!(!filter(LevelFilter::INFO).contains("frontend"));
        let raised = filter(LevelFilter::DEBUG);
        assert!(
            raised.contains("frontend=debug") && raised.contains("ort=warn") && raised.contains("info"),
            "{raised}"
        );
    }
}

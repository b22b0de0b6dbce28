//! The log: lines on standard error, whose levels and time format clients can change while the server runs.

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::SystemTime as Clock;

use anyhow::{Context as _, Result};
use frontend::{LogChange, LogControl, LogSettings, LogTime};
use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, Targets};
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
    let own = OwnLevels::of(directives);
    let switches = Arc::new(Switches::at(own.most));
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
    Ok(Arc::new(Log::new(directives, own, switches, reload)))
}

/// Puts a filter in place of the one before.
type Reload = Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

/// The log of this process.
struct Log {
    /// What `--log` says.
    directives: String,
    own: OwnLevels,
    switches: Arc<Switches>,
    reload: Reload,
    /// Locked through a change, so that of several the last one's filter stays: whether a client has said how much is to be
    /// logged.
    was_told: Mutex<bool>,
}

impl Log {
    fn new(directives: &str, own: OwnLevels, switches: Arc<Switches>, reload: Reload) -> Self {
        Log { directives: directives.to_owned(), own, switches, reload, was_told: Mutex::new(false) }
    }
}

impl LogControl for Log {
    fn settings(&self) -> LogSettings {
        self.switches.settings()
    }

    fn change(&self, change: LogChange) {
        let mut was_told = self.was_told.lock();
        *was_told |= change.verbose_level.is_some();
        self.switches.set(change);
        let level = self.switches.level();
        // Until somebody asks for more than there is, what `--log` says of each crate stands.
        let level = (*was_told || level > self.own.most).then_some(level);
        let filter = filter(&self.directives, &self.own, level);
        // Also makes every place that logs ask anew. Fails only once the log is gone.
        if let Err(error) = (self.reload)(filter) {
            eprintln!("panoply: the log cannot be changed: {error}");
        }
    }
}

/// The server's own filter, with its own crates at `level` where that is more than the filter lets through of them.
fn filter(directives: &str, own: &OwnLevels, level: Option<LevelFilter>) -> EnvFilter {
    let raised = own.crates.iter().filter_map(|(name, base)| Some((name, level.filter(|level| level > base)?)));
    raised.fold(EnvFilter::new(directives), |filter, (name, level)| {
        let directive: Directive = format!("{name}={level}").parse().expect("invariant: names of crates and levels");
        filter.add_directive(directive)
    })
}

/// What directives let through of this server's own crates.
struct OwnLevels {
    crates: [(&'static str, LevelFilter); OWN.len()],
    /// Of any of them, or of any part of one.
    most: LevelFilter,
}

impl OwnLevels {
    fn of(directives: &str) -> Self {
        // Directives about spans have brackets, and no commas within them.
        let (of_spans, plain): (Vec<_>, Vec<_>) = directives.split(',').partition(|directive| directive.contains('['));
        let targets: Targets = plain.join(",").parse().unwrap_or_default();
        let level = |name: &str| {
            let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
            let most = levels.into_iter().find(|level| targets.would_enable(name, level));
            most.map_or(LevelFilter::OFF, LevelFilter::from_level)
        };
        let crates = OWN.map(|name| (name, level(name)));
        let of_parts = targets.iter().filter(|(target, _)| is_own(target)).map(|(_, level)| level);
        let of_spans = of_spans.into_iter().filter_map(level_of_spans);
        let most = crates.iter().map(|(_, level)| *level).chain(of_parts).chain(of_spans).max();
        OwnLevels { crates, most: most.unwrap_or(LevelFilter::OFF) }
    }
}

/// The level of a directive about spans, `target[span]=level`, if it concerns this server's own crates.
fn level_of_spans(directive: &str) -> Option<LevelFilter> {
    let (target, rest) = directive.split_once('[')?;
    let level = rest.rsplit_once("]=").and_then(|(_, level)| level.parse().ok()).unwrap_or(LevelFilter::TRACE);
    (is_own(target) || OWN.iter().any(|name| name.starts_with(target))).then_some(level)
}

/// Whether lines with this target are this server's own.
fn is_own(target: &str) -> bool {
    let rest =
        OWN.iter().find_map(|name| target.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with("::")));
    rest.is_some()
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

    /// Errors, warnings and notes of libraries, too; of what they say beyond that `--log` alone decides.
    fn lets(&self, target: &str, level: Level) -> bool {
        let LogSettings { info, warning, error, verbose_level, .. } = self.settings();
        match level {
            Level::ERROR => error,
            Level::WARN => warning,
            Level::INFO => info,
            Level::DEBUG => verbose_level >= 1 || !is_own(target),
            Level::TRACE => verbose_level >= 2 || !is_own(target),
        }
    }
}

/// Lets through what the switches let.
struct Gate(Arc<Switches>);

impl<S: Subscriber> Layer<S> for Gate {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.0.lets(metadata.target(), *metadata.level())
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
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

    #[test]
    fn switches_let_their_levels_through() {
        let switches = Switches::at(LevelFilter::WARN);
        let lets = |switches: &Switches| LEVELS.map(|level| switches.lets("frontend::http", level));
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

    /// A log that writes down the filters that are put in place.
    fn log(directives: &str) -> (Log, Arc<Mutex<Vec<String>>>) {
        let (filters, own) = (Arc::new(Mutex::new(Vec::new())), OwnLevels::of(directives));
        let written = filters.clone();
        let reload: Reload = Box::new(move |filter| {
            written.lock().push(filter.to_string());
            Ok(())
        });
        let switches = Arc::new(Switches::at(own.most));
        (Log::new(directives, own, switches, reload), filters)
    }

    fn verbose(level: u32) -> LogChange {
        LogChange { verbose_level: Some(level), ..LogChange::default() }
    }

    #[test]
    fn only_the_servers_own_crates_are_raised() {
        for directives in ["info,ort=warn", "info,ort=warn,hyper=debug", "ort=warn,info,hyper[span]=trace"] {
            let (log, filters) = log(directives);
            assert_eq!(log.settings().verbose_level, 0, "{directives}");
            log.change(LogChange { warning: Some(true), ..LogChange::default() });
            log.change(verbose(1));
            let [same, raised] = &filters.lock()[..] else { panic!("two changes") };
            assert!(!same.contains("frontend"), "{same}");
            for directive in directives.split(',').chain(["frontend=debug", "panoply=debug"]) {
                assert!(raised.contains(directive), "{raised} of {directives}");
            }
        }
    }

    #[test]
    fn what_is_logged_of_some_crates_is_raised_to_only_when_a_client_says_so() {
        let (log, filters) = log("info,model_cache=debug,repository::store=trace");
        assert_eq!(log.settings().verbose_level, 2, "as much as there is of any");
        log.change(LogChange { error: Some(true), ..LogChange::default() });
        log.change(verbose(1));
        let [same, raised] = &filters.lock()[..] else { panic!("two changes") };
        assert!(!same.contains("frontend"), "{same}");
        assert!(raised.contains("frontend=debug") && raised.contains("repository::store=trace"), "{raised}");
        let own = OwnLevels::of("warn,front=debug,[load]=info");
        assert_eq!(own.crates.iter().find(|(name, _)| *name == "frontend"), Some(&("frontend", LevelFilter::DEBUG)));
        assert_eq!((own.crates[0].1, own.most), (LevelFilter::WARN, LevelFilter::DEBUG));
        assert_eq!(OwnLevels::of("off,[load]").most, LevelFilter::TRACE);
        assert_eq!(OwnLevels::of("").most, LevelFilter::ERROR, "as without directives");
    }

    #[test]
    fn what_libraries_say_is_decided_by_directives() {
        let switches = Switches::at(OwnLevels::of("info,hyper=debug").most);
        let lets = |target: &str| LEVELS.map(|level| switches.lets(target, level));
        assert_eq!(lets("hyper::client"), [true; 5]);
        assert_eq!(lets("frontend_of_others"), [true; 5]);
        assert_eq!(lets("frontend::http"), [true, true, true, false, false]);
        switches.set(LogChange { info: Some(false), ..LogChange::default() });
        assert_eq!(lets("hyper::client"), [true, true, false, true, true]);
    }

    /// While one change puts its filter in place, another comes: the filter that stays is that of the settings that stay.
    #[test]
    fn changes_take_effect_one_after_the_other() {
        let own = OwnLevels::of("info");
        let (filters, switches) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Switches::at(own.most)));
        let (entered, has_entered) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let (written, is_done) = (filters.clone(), Mutex::new(is_done));
        let reload: Reload = Box::new(move |filter| {
            if entered.send(()).is_ok() && written.lock().is_empty() && filter.to_string().contains("debug") {
                // The other change has time to overtake this one, if it can.
                let _ = is_done.lock().recv_timeout(Duration::from_millis(200));
            }
            written.lock().push(filter.to_string());
            Ok(())
        });
        let log = Log::new("info", own, switches, reload);
        std::thread::scope(|scope| {
            scope.spawn(|| log.change(verbose(1)));
            has_entered.recv().expect("it changes something");
            scope.spawn(|| {
                log.change(verbose(0));
                // Nobody waits for it any more where changes wait for each other.
                let _ = done.send(());
            });
        });
        assert_eq!(log.settings().verbose_level, 0);
        let filters = filters.lock();
        assert_eq!(filters.len(), 2);
        assert!(!filters[1].contains("debug"), "{filters:?}");
    }
}

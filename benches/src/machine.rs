//! What a run was measured on, and the CPU time that a process has used.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of times in `/proc/PID/stat`: `USER_HZ`, which is 100 on every architecture that Linux shows to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// One line about machine and versions, for the head of a table.
pub fn description() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "an unknown processor".to_owned());
    let kibibytes = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let memory = kibibytes.unwrap_or(f64::NAN) / f64::from(1 << 20);
    format!(
        "{cores} cores of {cpu}, {memory:.0} GiB, Linux {}; {}; ONNX Runtime {}",
        read("/proc/sys/kernel/osrelease"),
        printed("rustc", &["--version"]),
        onnxruntime_version().unwrap_or_else(|| "of an unknown version".to_owned())
    )
}

/// Today, and the load averages of the last 1, 5 and 15 minutes.
pub fn moment() -> String {
    let load = read("/proc/loadavg");
    let load: Vec<&str> = load.split(' ').take(3).collect();
    format!("{}, load average {}", printed("date", &["-u", "+%Y-%m-%d %H:%M UTC"]), load.join(" "))
}

/// The CPU time that a process has used since its start, on all its threads.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(process: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).context("the process is gone")?;
    let ticks = ticks(&text).context("/proc/PID/stat has an unexpected form")?;
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

/// User and system time of a line of `/proc/PID/stat`. The second field is a name in brackets and may hold blanks.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(|field| field.parse::<u64>().ok());
    Some(times.next()?? + times.next()??)
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = read(file);
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| format!("no {program}"), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The library's exported symbols carry its version: `VERS_1.31.1`.
fn onnxruntime_version() -> Option<String> {
    version_of(&fs::read(library()).ok()?)
}

fn version_of(library: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"\0VERS_";
    let start = library.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let version = library[start..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.');
    String::from_utf8(version.copied().collect()).ok()
}

/// ONNX Runtime, where `cargo xtask setup` puts it.
pub fn library() -> impl AsRef<Path> {
    test_util::artifacts().join("onnxruntime/libonnxruntime.so")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cpu_time_behind_any_name() {
        let stat = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 70 5 0 0 20 0 1";
        assert_eq!(ticks(stat), Some(75));
        assert!(cpu_time(std::process::id()).is_ok());
    }

    #[test]
    fn finds_the_version_among_the_symbols() {
        assert_eq!(version_of(b"\x7fELF\0a\0VERS_1.31.1\0b").as_deref(), Some("1.31.1"));
        assert_eq!(version_of(b"\x7fELF"), None);
    }
}

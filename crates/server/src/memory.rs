//! How much memory there is: the control group's limit where there is one, the machine's otherwise.

use std::fs;
use std::path::Path;

/// The share of host memory that models may take by default; the rest is for requests, runtimes and the page cache.
const HOST_SHARE: f64 = 0.6;

/// Bytes of host memory that models may take when nothing was said.
pub(crate) fn default_model_memory() -> u64 {
    let machine = read_number(Path::new("/proc/meminfo"), meminfo_total);
    let limits = [
        read_number(Path::new("/sys/fs/cgroup/memory.max"), plain_number),
        read_number(Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes"), plain_number),
        machine,
    ];
    let available = limits.into_iter().flatten().min().unwrap_or(4 << 30);
    (available as f64 * HOST_SHARE) as u64
}

fn read_number(file: &Path, parse: impl FnOnce(&str) -> Option<u64>) -> Option<u64> {
    parse(&fs::read_to_string(file).ok()?)
}

/// A control group's limit; `max` means none.
fn plain_number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Blocks up to this size are kept for the next request: mapping fresh pages for each body of some hundred kilobytes costs
/// more than half of its time.
#[cfg(target_env = "gnu")]
const KEPT_BLOCK: i32 = 8 << 20;

/// Sets up glibc's allocator for a server: larger blocks (a model's weights) come from the system and go back to it at
/// once, smaller ones are kept. Call it before any other thread is started.
pub(crate) fn set_up_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only sets parameters of the allocator, before other threads use it.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BLOCK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 * KEPT_BLOCK);
    }
}

/// Gives memory that was freed back to the system; what an unloaded model held would stay with the process otherwise, and
/// the budget would mean little. Takes milliseconds.
pub(crate) fn give_freed_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(meminfo_total("MemTotal:       24684084 kB\nMemFree: 1 kB\n"), Some(24_684_084 * 1024));
        assert_eq!(plain_number("max\n"), None);
        assert_eq!(plain_number("1073741824\n"), Some(1 << 30));
        assert!(default_model_memory() > 0);
    }
}

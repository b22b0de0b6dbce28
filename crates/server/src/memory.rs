//! How much memory there is: the control group's limit where there is one, the machine's otherwise.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::{fs, io, iter, thread};

use repository::Background;

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

/// Gives memory that was freed back to the system; what an unloaded model held would stay with the process otherwise, and the
/// budget would mean little.
///
/// glibc gives each thread an arena of its own, up to eight for each processor. Two things make memory of an arena free for
/// others: `malloc_trim` for what lies between blocks in use, and a free with the threshold exceeded for what lies behind the
/// last one, which `malloc_trim` forgets in all arenas but the first. The threshold being for requests ([`KEPT_BLOCK`]), up to
/// 16 MiB would stay in the arena of each thread that models were ever loaded on.
///
/// `malloc_trim` holds the lock of one arena after the other, and requests wait for theirs: it has a thread with their priority.
///
/// The threshold is one for all, and to set it takes the lock of the first arena: only that thread does, once for all who ask
/// at the same time. While it is low, requests may have to map pages anew.
pub(crate) struct FreedMemory(Sender<Asking>);

/// Somebody who has freed memory. Nothing is ever sent: each channel says something by its end.
struct Asking {
    /// Ends when the threshold is low.
    is_low: Sender<()>,
    /// Ends when whoever asked has made use of that.
    is_done: Receiver<()>,
}

impl FreedMemory {
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn of(background: Background) -> io::Result<Self> {
        let (asking, asked) = channel::<Asking>();
        thread::Builder::new().name("trim".to_owned()).spawn(move || {
            while let Ok(first) = asked.recv() {
                // All that has been freed until now is given back in one go.
                let waiting: Vec<_> = iter::once(first).chain(asked.try_iter()).collect();
                trim_all();
                set_trim_threshold(BLOCK as i32);
                background.on_idle_threads(free_a_block);
                let (low, done): (Vec<Sender<()>>, Vec<Receiver<()>>) =
                    waiting.into_iter().map(|asking| (asking.is_low, asking.is_done)).unzip();
                drop(low);
                done.iter().for_each(|done| _ = done.recv());
                set_trim_threshold(2 * KEPT_BLOCK);
            }
        })?;
        Ok(FreedMemory(asking))
    }

    /// Returns when what the current thread has freed is given back, with what is free behind the last block of the arenas of
    /// background threads that are idle. Takes milliseconds.
    pub(crate) fn give_back(&self) {
        let ((low, is_low), (done, is_done)) = (channel::<()>(), channel());
        let _ = self.0.send(Asking { is_low: low, is_done });
        let _ = is_low.recv();
        free_a_block();
        drop(done);
    }
}

/// What is free between blocks.
fn trim_all() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Larger blocks are not kept for the thread itself; freeing one, the allocator looks at the threshold.
const BLOCK: usize = 128 << 10;

/// How much may stay free behind the last block of an arena when one is freed there.
fn set_trim_threshold(bytes: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: parameters of the allocator may be set at any time.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, bytes);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

/// Has what is free behind the last block of the current thread's arena given back, while the threshold is low.
fn free_a_block() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the block is freed once and not used.
    unsafe {
        // A compiler may not leave out what it cannot see through.
        libc::free(std::hint::black_box(libc::malloc(BLOCK)));
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

    #[cfg(target_os = "linux")]
    fn resident() -> usize {
        let status = fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it is told");
        line.split_whitespace().nth(1).expect("a number").parse::<usize>().expect("kibibytes") << 10
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_allocated_in_the_background_and_freed_elsewhere_is_given_back() {
        const BLOCKS: usize = 12;
        set_up_allocator();
        let background = Background::start(0, 2).expect("threads");
        let freed = FreedMemory::of(background.clone()).expect("a thread");
        let allocate = || (0..BLOCKS).map(|_| vec![1_u8; 1 << 20]).collect::<Vec<_>>();
        // Two at the same time: each thread has an arena.
        let (meet, other) = (std::sync::Arc::new(std::sync::Barrier::new(2)), background.clone());
        let met = meet.clone();
        let both = [other.run(move || (met.wait(), allocate()).1), background.run(move || (meet.wait(), allocate()).1)];
        let mut blocks = Vec::new();
        for allocated in both {
            blocks.push(allocated.await.expect("no panic"));
        }
        let full = resident();
        drop(blocks);
        background.run(move || freed.give_back()).await.expect("no panic");
        // Others' tests run in this process as well; without any of it nothing at all would be given back.
        let given_back = full.saturating_sub(resident());
        assert!(given_back > 20 << 20, "{given_back} of {} bytes", (2 * BLOCKS) << 20);
    }
}

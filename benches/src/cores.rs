//! Which cores threads may run on.

use std::fs;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// The core that is used when it has to be one.
const CORE: usize = 0;

/// Lets a process, and this thread with those that it starts, have one core between them for as long as `work` takes.
/// Afterwards they have all that this thread had before.
///
/// # Errors
/// When the process is gone, or not ours.
pub fn on_one<T>(process: u32, work: impl FnOnce() -> T) -> Result<T> {
    let all = sched_getaffinity(None).context("this thread's cores cannot be read")?;
    let mut one = CpuSet::new();
    one.set(CORE);
    confine(process, &one)?;
    let outcome = work();
    confine(process, &all)?;
    Ok(outcome)
}

fn confine(process: u32, cores: &CpuSet) -> Result<()> {
    for thread in fs::read_dir(format!("/proc/{process}/task")).context("the process is gone")? {
        let thread = thread?.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        // A thread may have ended meanwhile.
        let _ = sched_setaffinity(thread, cores);
    }
    sched_setaffinity(None, cores).context("this thread's cores cannot be set")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_has_one_core_and_the_thread_all_afterwards() {
        let before = sched_getaffinity(None).unwrap();
        let cores = on_one(std::process::id(), || sched_getaffinity(None).unwrap().count()).unwrap();
        assert_eq!(cores, 1);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}

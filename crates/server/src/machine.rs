//! The machine's CPU and memory as metrics (`nv_cpu_*`), measured from time to time.

use std::time::Duration;

use metrics::{describe_gauge, gauge};

/// Jiffies since the machine started, of all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Jiffies {
    idle: u64,
    all: u64,
}

/// Measures for as long as the process runs. What the system does not tell is no metric.
pub(crate) async fn measure(interval: Duration) {
    describe_gauge!("nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]");
    describe_gauge!("nv_cpu_memory_total_bytes", "CPU total memory (RAM), in bytes");
    describe_gauge!("nv_cpu_memory_used_bytes", "CPU used memory (RAM), in bytes");
    let mut before = Jiffies::default();
    loop {
        if let Some(now) = read("/proc/stat").await.as_deref().and_then(jiffies) {
            gauge!("nv_cpu_utilization").set(utilization(before, now));
            before = now;
        }
        if let Some((total, used)) = read("/proc/meminfo").await.as_deref().and_then(memory) {
            gauge!("nv_cpu_memory_total_bytes").set(total as f64);
            gauge!("nv_cpu_memory_used_bytes").set(used as f64);
        }
        tokio::time::sleep(interval).await;
    }
}

async fn read(path: &str) -> Option<String> {
    tokio::fs::read_to_string(path).await.ok()
}

/// The share of time between two readings in which CPUs were busy; since the machine's start, for the first one.
fn utilization(before: Jiffies, now: Jiffies) -> f64 {
    let all = now.all.saturating_sub(before.all);
    let idle = now.idle.saturating_sub(before.idle).min(all);
    if all == 0 { 0.0 } else { (all - idle) as f64 / all as f64 }
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; guests are within user and nice.
fn jiffies(stat: &str) -> Option<Jiffies> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let figures: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = figures.get(3)? + figures.get(4)?;
    Some(Jiffies { idle, all: figures.iter().sum() })
}

/// Total and used bytes from `/proc/meminfo`; used is what is not available.
fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let total = bytes("MemTotal")?;
    Some((total, total.saturating_sub(bytes("MemAvailable")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_own_figures_are_read() {
        let stat = "cpu  100 10 50 800 40 0 0 0 7 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(jiffies(stat), Some(Jiffies { idle: 840, all: 1000 }));
        let meminfo = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    300 kB\n";
        assert_eq!(memory(meminfo), Some((1_024_000, 716_800)));
        assert_eq!((jiffies("intr 1"), memory("MemTotal: 1 kB")), (None, None));
    }

    #[test]
    fn utilization_is_of_the_time_between() {
        let at = |idle, all| Jiffies { idle, all };
        assert_eq!(utilization(at(0, 0), at(840, 1000)), 0.16);
        assert_eq!(utilization(at(840, 1000), at(890, 1100)), 0.5);
        assert_eq!(utilization(at(840, 1000), at(840, 1000)), 0.0);
    }
}

//! Closed-loop load: so many clients, each of which makes its next call as soon as the last one is answered.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::machine::cpu_time;
use crate::statistics::Round;

/// How many calls of one client are timed in a round; the rest is counted.
const TIMED_CALLS: usize = 400_000;

/// One client; a call is over when its answer is there.
pub trait Client: Send {
    /// Makes one call.
    ///
    /// # Errors
    /// When the answer is not the expected one.
    fn call(&mut self) -> Result<()>;
}

/// How long a round is.
#[derive(Clone, Copy, Debug)]
pub struct Duty {
    /// Time in which calls are made and not counted.
    pub warm_up: Duration,
    /// Time in which they are.
    pub measure: Duration,
}

/// Lets every client make calls on a thread of its own. `process` is the one whose CPU time the calls cost.
///
/// # Errors
/// The first failed call.
pub fn run(clients: &mut [Box<dyn Client>], duty: Duty, process: u32) -> Result<Round> {
    let barrier = Barrier::new(clients.len() + 1);
    thread::scope(|scope| {
        let barrier = &barrier;
        let start = |client| scope.spawn(move || one_client(client, duty, barrier));
        let threads: Vec<_> = clients.iter_mut().map(start).collect();
        barrier.wait();
        thread::sleep(duty.warm_up);
        let (before, begun) = (cpu_time(process)?, Instant::now());
        thread::sleep(duty.measure);
        let (after, elapsed) = (cpu_time(process)?, begun.elapsed());
        let (mut times, mut calls) = (Vec::new(), 0);
        for thread in threads {
            let own = thread.join().ok().context("a client panicked")??;
            times.extend(own.times);
            calls += own.calls;
        }
        Ok(Round::of(times, calls, after.saturating_sub(before), elapsed))
    })
}

/// What one client saw: nanoseconds of each call.
struct Calls {
    times: Vec<u32>,
    calls: u64,
}

fn one_client(client: &mut Box<dyn Client>, duty: Duty, barrier: &Barrier) -> Result<Calls> {
    let mut seen = Calls { times: Vec::with_capacity(TIMED_CALLS), calls: 0 };
    barrier.wait();
    let mut last = Instant::now();
    let (begin, end) = (last + duty.warm_up, last + duty.warm_up + duty.measure);
    while last < end {
        client.call()?;
        let now = Instant::now();
        if last >= begin {
            seen.calls += 1;
            if seen.times.len() < TIMED_CALLS {
                seen.times.push(u32::try_from((now - last).as_nanos()).unwrap_or(u32::MAX));
            }
        }
        last = now;
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sleeper(Duration);

    impl Client for Sleeper {
        fn call(&mut self) -> Result<()> {
            anyhow::ensure!(!self.0.is_zero(), "nothing to sleep");
            thread::sleep(self.0);
            Ok(())
        }
    }

    fn sleepers(milliseconds: u64) -> Result<Round> {
        let client = || Box::new(Sleeper(Duration::from_millis(milliseconds))) as Box<dyn Client>;
        let duty = Duty { warm_up: Duration::from_millis(10), measure: Duration::from_millis(100) };
        run(&mut [client(), client()], duty, std::process::id())
    }

    #[test]
    fn times_and_counts_the_calls_of_all_clients() {
        let round = sleepers(5).expect("no call fails");
        assert!(round.p50 >= 5000.0, "{round:?}");
        assert!((4.0..=42.0).contains(&(round.per_second * 0.1)), "{round:?}");
    }

    #[test]
    fn a_failed_call_fails_the_round() {
        assert!(sleepers(0).is_err());
    }
}

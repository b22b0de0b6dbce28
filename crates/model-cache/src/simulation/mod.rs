//! A simulation of what is in memory: the real room, flights and loads, over a loader that takes its time, fails, panics and
//! hangs, in paused time and from a seed. The same seed makes the same run, to the last event.
//!
//! It shows, over as many steps as it is given: no pinned archive is evicted, no budget is exceeded, no request is lost and no
//! flight is doubled.

mod backend;
mod churn;
mod events;
mod world;

use std::cell::RefCell;
use std::time::Duration;

use test_util::dice::Dice;

use self::events::Events;
use self::world::World;

/// Steps of a run of the suite. `PANOPLY_SIMULATION_STEPS` sets another number: a million take a minute or two in a debug build.
const STEPS: u64 = 100_000;

/// How work turns out.
enum Fate {
    /// At once, and well.
    Certain,
    AsTheDiceSay(Dice),
}

thread_local! {
    /// What decides how the work of this thread's simulation turns out, while there is one.
    static FATE: RefCell<Option<Fate>> = const { RefCell::new(None) };
}

/// How long work that blocks takes in the simulation that this thread is part of; `None` outside of one.
pub(crate) fn work_duration() -> Option<Duration> {
    FATE.with_borrow_mut(|fate| {
        Some(match fate.as_mut()? {
            Fate::Certain => Duration::ZERO,
            Fate::AsTheDiceSay(dice) => match dice.below(100) {
                // Longer than the load timeout: it hangs, and comes to an end much later.
                0 => world::LOAD_TIMEOUT * 3,
                1..=10 => dice.millis(500, 3000),
                _ => dice.millis(1, 200),
            },
        })
    })
}

/// Work takes no time on this thread.
fn without_dice() {
    FATE.set(Some(Fate::Certain));
}

/// Rolls this thread's dice.
fn fate(below: usize) -> usize {
    FATE.with_borrow_mut(|fate| match fate {
        Some(Fate::AsTheDiceSay(dice)) => dice.below(below),
        _ => 0,
    })
}

/// Runs a world for so many steps, to its end.
fn run(seed: u64, policy: crate::policy::EvictionPolicy, steps: u64) -> Events {
    FATE.set(Some(Fate::AsTheDiceSay(Dice::new(!seed))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let events = runtime.expect("a runtime").block_on(async {
        let mut world = World::new(seed, policy);
        for _ in 0..steps {
            world.step().await;
            world.check();
        }
        world.end().await
    });
    FATE.set(None);
    events
}

mod tests {
    use super::*;
    use crate::policy::EvictionPolicy;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a longer run of a test is no setting")]
    fn residency_holds_over_many_steps_of_everything_at_once() {
        let steps = std::env::var("PANOPLY_SIMULATION_STEPS").map_or(STEPS, |steps| steps.parse().expect("a number"));
        for (seed, policy) in (1..).zip(EvictionPolicy::ALL) {
            let events = run(seed, policy, steps / 3);
            println!("{policy}: {events:?}");
            events.assert_complete(steps / 3);
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_run() {
        let [first, again, other] = [7, 7, 8].map(|seed| run(seed, EvictionPolicy::Cost, 3000));
        assert_eq!(first, again);
        assert_ne!(first, other);
    }
}

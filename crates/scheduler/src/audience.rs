//! Who waits for a run: once nobody does, the run is cancelled, so that it gives its instance back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use inference::{CancelCause, Cancellation};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The one who waits for a run of its own; dropping this cancels the run.
pub(crate) struct SoleWaiter(Cancellation);

impl SoleWaiter {
    pub(crate) fn new() -> Self {
        SoleWaiter(Cancellation::new())
    }

    /// Cancelled when this one waits no longer.
    pub(crate) fn cancellation(&self) -> Cancellation {
        self.0.clone()
    }

    /// Its time is over.
    pub(crate) fn give_up(self) {
        self.0.cancel(CancelCause::Overdue);
    }
}

impl Drop for SoleWaiter {
    fn drop(&mut self) {
        self.0.cancel(CancelCause::Abandoned);
    }
}

/// One who waits for a request that may share its run with others.
pub(crate) struct Waiter {
    deadline: Option<Instant>,
    state: Mutex<State>,
}

enum State {
    /// No run of the request is under way.
    Idle,
    /// This one is.
    Runs(Arc<Run>),
    Gone(CancelCause),
}

/// A run and how many still wait for it.
struct Run {
    cancellation: Cancellation,
    waiting: AtomicUsize,
}

impl Run {
    fn left(&self, cause: CancelCause) {
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.cancellation.cancel(cause);
        }
    }
}

impl Waiter {
    /// One who waits until `deadline`.
    pub(crate) fn new(deadline: Option<Instant>) -> Arc<Self> {
        Arc::new(Waiter { deadline, state: Mutex::new(State::Idle) })
    }

    /// When its time is over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// It waits no longer, for this reason; the first one counts.
    pub(crate) fn leave(&self, cause: CancelCause) {
        let run = {
            let mut state = self.state.lock();
            match &*state {
                State::Gone(_) => return,
                State::Idle | State::Runs(_) => std::mem::replace(&mut *state, State::Gone(cause)),
            }
        };
        if let State::Runs(run) = run {
            run.left(cause);
        }
    }

    /// Why it waits no longer, if so.
    fn gone(&self, now: Instant) -> Option<CancelCause> {
        match &*self.state.lock() {
            State::Gone(cause) => Some(*cause),
            _ => self.deadline.filter(|deadline| *deadline <= now).map(|_| CancelCause::Overdue),
        }
    }

    /// It waits for this run from now on.
    fn attend(&self, run: &Arc<Run>) {
        let mut state = self.state.lock();
        match &*state {
            State::Gone(cause) => {
                let cause = *cause;
                drop(state);
                run.left(cause);
            }
            State::Idle | State::Runs(_) => *state = State::Runs(run.clone()),
        }
    }
}

/// Who waits for the requests of a batch, in their order; `None` for what nobody ever waits for.
pub(crate) struct Audience(Vec<Option<Arc<Waiter>>>);

impl Audience {
    pub(crate) fn new(waiters: impl IntoIterator<Item = Option<Arc<Waiter>>>) -> Self {
        Audience(waiters.into_iter().collect())
    }

    /// A run of all of them: cancelled once the last one waits no longer.
    pub(crate) fn of_all(&self) -> Cancellation {
        attend(self.0.iter().flatten())
    }

    /// A run of this request alone; `None` where nobody waits for it.
    pub(crate) fn of_one(&self, index: usize) -> Option<Cancellation> {
        let waiter = self.0.get(index)?.as_ref()?;
        waiter.gone(Instant::now()).is_none().then(|| attend(std::iter::once(waiter)))
    }
}

fn attend<'w>(waiters: impl Iterator<Item = &'w Arc<Waiter>> + Clone) -> Cancellation {
    let waiting = AtomicUsize::new(waiters.clone().count());
    let run = Arc::new(Run { cancellation: Cancellation::new(), waiting });
    waiters.for_each(|waiter| waiter.attend(&run));
    run.cancellation.clone()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn audience(waiters: &[Arc<Waiter>]) -> Audience {
        Audience::new(waiters.iter().cloned().map(Some))
    }

    proptest! {
        /// Whoever leaves when, and however often: a run is cancelled when the last of its waiters has left, and not before.
        #[test]
        fn a_run_ends_with_its_last_waiter(
            count in 1usize..6,
            early in proptest::collection::vec(0usize..6, 0..6),
            late in proptest::collection::vec(0usize..6, 0..12),
        ) {
            let waiters: Vec<_> = (0..count).map(|_| Waiter::new(None)).collect();
            let mut gone = vec![false; count];
            let mut leave = |index: usize| {
                waiters[index % count].leave(CancelCause::Abandoned);
                gone[index % count] = true;
                gone.iter().all(|gone| *gone)
            };
            let mut over = early.into_iter().fold(false, |_, index| leave(index));
            let run = audience(&waiters).of_all();
            prop_assert_eq!(run.cause().is_some(), over);
            for index in late {
                over = leave(index);
                prop_assert_eq!(run.cause().is_some(), over);
            }
        }
    }

    #[test]
    fn a_request_that_runs_again_is_cancelled_in_its_second_run() {
        let waiters = [Waiter::new(None), Waiter::new(None)];
        let audience = audience(&waiters);
        let together = audience.of_all();
        let [first, second] = [0, 1].map(|index| audience.of_one(index).expect("it waits"));
        waiters[0].leave(CancelCause::Overdue);
        assert_eq!([&together, &first, &second].map(Cancellation::cause), [None, Some(CancelCause::Overdue), None]);
        assert!(audience.of_one(0).is_none() && audience.of_one(1).is_some());
    }

    #[test]
    fn nobody_waits_past_a_deadline_or_for_a_filler() {
        let now = Instant::now();
        let waiter = |deadline| Some(Waiter::new(Some(deadline)));
        let audience = Audience::new([waiter(now), None, waiter(now + Duration::from_secs(60))]);
        assert_eq!([0, 1, 2, 3].map(|index| audience.of_one(index).is_some()), [false, false, true, false]);
    }

    #[test]
    fn a_sole_waiter_that_goes_cancels_its_run() {
        let waiter = SoleWaiter::new();
        let run = waiter.cancellation();
        assert_eq!(run.cause(), None);
        drop(waiter);
        assert_eq!(run.cause(), Some(CancelCause::Abandoned));
    }
}

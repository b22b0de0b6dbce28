//! Single flight: one load per archive, whoever asks and however often.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inference::{CacheOutcome, Error, Result, TargetModel};
use parking_lot::Mutex;
use repository::{Priority, Urgency};
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::clock::now;
use crate::loaded::Pin;
use crate::metrics::CacheMetrics;

/// What a load ends in, for everyone who waited for it.
pub(crate) type Landing = Result<(Pin, CacheOutcome)>;

/// The loads under way.
///
/// Invariant: an archive has at most one flight, and its entry goes only after the archive is resident (or the failure is
/// remembered), so that no request can see neither. The lock is held for look-ups only.
pub(crate) struct Flights {
    flying: Mutex<HashMap<TargetModel, Flight>>,
    queue_size: usize,
    longest: Duration,
    metrics: CacheMetrics,
}

#[derive(Clone)]
struct Flight {
    landing: watch::Receiver<Option<Landing>>,
    /// Nobody waits longer than this, even for a load that hangs.
    due: Instant,
    /// As urgent as the most urgent of its passengers.
    urgency: Urgency,
    /// One clone here, one in each passenger.
    waiting: Arc<()>,
}

impl Flights {
    /// At most `queue_size` requests wait for one archive, and none of them past `longest` after the load began.
    pub(crate) fn new(queue_size: usize, longest: Duration, metrics: CacheMetrics) -> Arc<Self> {
        Arc::new(Flights { flying: Mutex::default(), queue_size, longest, metrics })
    }

    /// Every archive that is being loaded.
    pub(crate) fn targets(&self) -> Vec<TargetModel> {
        self.flying.lock().keys().cloned().collect()
    }

    /// Joins the archive's flight, or makes one of what `depart` returns. The flight is a task of its own: a caller that
    /// goes away does not cancel it for the others. A flight is as urgent as its most urgent passenger; `depart` gets that.
    ///
    /// # Errors
    /// Overloaded when too many wait already.
    pub(crate) fn board<F>(
        self: &Arc<Self>,
        target: &TargetModel,
        priority: Priority,
        depart: impl FnOnce(Urgency) -> F,
    ) -> Result<Passenger>
    where
        F: Future<Output = Landing> + Send + 'static,
    {
        let mut flying = self.flying.lock();
        if let Some(flight) = flying.get(target) {
            flight.urgency.raise(priority);
            return self.join(target, flight);
        }
        let (sender, landing) = watch::channel(None);
        let urgency = Urgency::from(priority);
        let due = now() + self.longest;
        let flight = Flight { landing, due, urgency: urgency.clone(), waiting: Arc::default() };
        let passenger = self.join(target, &flight);
        flying.insert(target.clone(), flight);
        drop(flying);
        let (flights, target, work) = (self.clone(), target.clone(), tokio::spawn(depart(urgency)));
        tokio::spawn(async move {
            let landing = work.await.unwrap_or_else(|_| Err(panicked(&target)));
            flights.flying.lock().remove(&target);
            sender.send_replace(Some(landing));
        });
        passenger
    }

    fn join(&self, target: &TargetModel, flight: &Flight) -> Result<Passenger> {
        let waiting = Arc::strong_count(&flight.waiting) - 1;
        if waiting >= self.queue_size {
            return Err(Error::overloaded(format!(
                "{waiting} requests wait for '{target}' to be loaded already, which is the limit (--load-queue-size)"
            ))
            .with_model(target.as_str()));
        }
        self.metrics.waiting(1.0);
        Ok(Passenger { target: target.clone(), flight: flight.clone(), metrics: self.metrics, since: now() })
    }
}

/// A request that waits for a load.
pub(crate) struct Passenger {
    target: TargetModel,
    flight: Flight,
    metrics: CacheMetrics,
    since: Instant,
}

impl Passenger {
    /// Waits for the load to end, for the request's own deadline, or until the load is overdue.
    ///
    /// # Errors
    /// What the load ended in; DeadlineExceeded when it takes longer than the request may (the load goes on).
    pub(crate) async fn land(mut self, deadline: Option<Instant>) -> Landing {
        let until = deadline.map_or(self.flight.due, |deadline| deadline.min(self.flight.due));
        let landed = self.flight.landing.wait_for(Option::is_some);
        match timeout_at(until.into(), landed).await.map_err(|_| late(&self.target))? {
            Ok(landing) => landing.clone().expect("invariant: waited for"),
            Err(_) => Err(panicked(&self.target)),
        }
    }
}

impl Drop for Passenger {
    fn drop(&mut self) {
        self.metrics.waiting(-1.0);
        self.metrics.waited(now() - self.since);
    }
}

fn late(target: &TargetModel) -> Error {
    Error::deadline_exceeded(format!(
        "Request timeout expired while '{target}' is being loaded; the load goes on, try again later"
    ))
    .with_model(target.as_str())
}

fn panicked(target: &TargetModel) -> Error {
    Error::internal(format!("loading '{target}' panicked; see the server's log")).with_model(target.as_str())
}

#[cfg(test)]
mod tests {
    use inference::ErrorKind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn target() -> TargetModel {
        TargetModel::new("a.tar.gz").expect("valid")
    }

    /// A flight that takes a minute and fails, and counts how often it departs.
    async fn slow(departures: Arc<AtomicUsize>) -> Landing {
        departures.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(60)).await;
        Err(Error::no_room("full"))
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_share_one_flight_and_its_end() {
        let (flights, departures) = (Flights::new(100, HOUR, CacheMetrics), Arc::new(AtomicUsize::new(0)));
        let board =
            || flights.board(&target(), Priority::Interactive, |_| slow(departures.clone())).expect("queue has room");
        let early = board();
        let passengers: Vec<_> = (0..64).map(|_| board()).collect();
        drop(early);
        for passenger in passengers {
            assert_eq!(passenger.land(None).await.err().expect("it fails").kind(), ErrorKind::NoRoom);
        }
        assert_eq!(departures.load(Ordering::SeqCst), 1);
        assert!(flights.targets().is_empty());
        board().land(None).await.err().expect("it fails again");
        assert_eq!(departures.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded_in_number_and_time() {
        let flights = Flights::new(1, HOUR, CacheMetrics);
        let board = || flights.board(&target(), Priority::Interactive, |_| slow(Arc::default()));
        let first = board().expect("room for one");
        assert_eq!(board().err().expect("no room for two").kind(), ErrorKind::Overloaded);
        let deadline = now() + Duration::from_secs(1);
        assert_eq!(first.land(Some(deadline)).await.err().expect("late").kind(), ErrorKind::DeadlineExceeded);
        assert!(board().is_ok(), "who gave up waits no longer");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_load_that_hangs_past_its_time() {
        let flights = Flights::new(10, Duration::from_secs(5), CacheMetrics);
        let board = || flights.board(&target(), Priority::Interactive, |_| std::future::pending()).expect("room");
        assert_eq!(board().land(None).await.err().expect("overdue").kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(flights.targets(), [target()], "it is still the archive's one flight");
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_the_flight_for_everyone() {
        let flights = Flights::new(10, HOUR, CacheMetrics);
        let passenger =
            flights.board(&target(), Priority::Interactive, |_| async { panic!("in a loader") }).expect("room");
        assert_eq!(passenger.land(None).await.err().expect("panicked").kind(), ErrorKind::Internal);
    }
}

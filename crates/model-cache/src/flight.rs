//! Single flight: one load per archive, whoever asks and however often.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inference::{CacheOutcome, Error, ErrorKind, Result, TargetModel};
use parking_lot::Mutex;
use repository::{Priority, Urgency};
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::clock::now;
use crate::forecast::{Estimate, Forecast};
use crate::journey::Journey;
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
    forecast: Arc<Mutex<Forecast>>,
    metrics: CacheMetrics,
}

#[derive(Clone)]
struct Flight {
    /// It began although nobody had asked for it, and may end for want of room that a request would be given.
    is_unasked: bool,
    landing: watch::Receiver<Option<Landing>>,
    /// Nobody waits longer than this, even for a load that hangs.
    due: Instant,
    /// When it is expected to end; learned better as it goes on.
    estimate: watch::Receiver<Estimate>,
    /// As urgent as the most urgent of its passengers.
    urgency: Urgency,
    /// One clone here, one in each passenger.
    waiting: Arc<()>,
}

impl Flights {
    /// At most `queue_size` requests wait for one archive, and none of them past `longest` after the load began.
    pub(crate) fn new(queue_size: usize, longest: Duration, forecast: Forecast, metrics: CacheMetrics) -> Arc<Self> {
        let forecast = Arc::new(Mutex::new(forecast));
        Arc::new(Flights { flying: Mutex::default(), queue_size, longest, forecast, metrics })
    }

    /// Whether one of the loads was asked for, from the start or since. Nobody waits any more for one that is overdue.
    pub(crate) fn are_asked_for(&self) -> bool {
        let now = now();
        let is_asked_for = |flight: &Flight| !flight.is_unasked || flight.urgency.now() != Priority::Prefetch;
        self.flying.lock().values().any(|flight| is_asked_for(flight) && flight.due > now)
    }

    /// Every archive that is being loaded.
    pub(crate) fn targets(&self) -> Vec<TargetModel> {
        self.flying.lock().keys().cloned().collect()
    }

    /// Joins the archive's flight, or makes one of what `depart` returns. The flight is a task of its own: a caller that
    /// goes away does not cancel it for the others. A flight is as urgent as its most urgent passenger; `depart` gets a journey
    /// that knows that.
    ///
    /// # Errors
    /// Overloaded when too many wait already.
    pub(crate) fn board<F>(
        self: &Arc<Self>,
        target: &TargetModel,
        priority: Priority,
        depart: impl FnOnce(Journey) -> F,
    ) -> Result<Passenger>
    where
        F: Future<Output = Landing> + Send + 'static,
    {
        self.board_as(target, priority, false, depart)
    }

    /// As [`Flights::board`] with the lowest priority, for what nobody has asked for.
    ///
    /// # Errors
    /// As [`Flights::board`].
    pub(crate) fn board_unasked<F>(
        self: &Arc<Self>,
        target: &TargetModel,
        depart: impl FnOnce(Journey) -> F,
    ) -> Result<Passenger>
    where
        F: Future<Output = Landing> + Send + 'static,
    {
        self.board_as(target, Priority::Prefetch, true, depart)
    }

    fn board_as<F>(
        self: &Arc<Self>,
        target: &TargetModel,
        priority: Priority,
        is_unasked: bool,
        depart: impl FnOnce(Journey) -> F,
    ) -> Result<Passenger>
    where
        F: Future<Output = Landing> + Send + 'static,
    {
        let mut flying = self.flying.lock();
        if let Some(flight) = flying.get(target) {
            flight.urgency.raise(priority);
            return self.join(target, flight);
        }
        let Departing { flight, journey, landed } = self.departing(target, priority, is_unasked);
        let passenger = self.join(target, &flight);
        flying.insert(target.clone(), flight);
        drop(flying);
        self.fly(target.clone(), depart(journey), landed);
        passenger
    }

    /// Makes a flight of what `depart` returns, which nobody has asked for yet; `None` where the archive has one already.
    /// What is returned ends with the flight, or when that is overdue.
    pub(crate) fn begin<F, D>(
        self: &Arc<Self>,
        target: &TargetModel,
        priority: Priority,
        depart: D,
    ) -> Option<impl Future<Output = ()> + Send + use<F, D>>
    where
        D: FnOnce(Journey) -> F,
        F: Future<Output = Landing> + Send + 'static,
    {
        let mut flying = self.flying.lock();
        if flying.contains_key(target) {
            return None;
        }
        let Departing { flight, journey, landed } = self.departing(target, priority, true);
        let (mut landing, due) = (flight.landing.clone(), flight.due);
        flying.insert(target.clone(), flight);
        drop(flying);
        self.fly(target.clone(), depart(journey), landed);
        Some(async move {
            let _ = timeout_at(due.into(), landing.wait_for(Option::is_some)).await;
        })
    }

    fn departing(&self, target: &TargetModel, priority: Priority, is_unasked: bool) -> Departing {
        let (landed, landing) = watch::channel(None);
        let urgency = Urgency::from(priority);
        let due = now() + self.longest;
        let (journey, estimate) = Journey::begin(target.clone(), urgency.clone(), is_unasked, self.forecast.clone());
        let flight = Flight { is_unasked, landing, due, estimate, urgency, waiting: Arc::default() };
        Departing { flight, journey, landed }
    }

    fn fly<F>(self: &Arc<Self>, target: TargetModel, flight: F, landed: watch::Sender<Option<Landing>>)
    where
        F: Future<Output = Landing> + Send + 'static,
    {
        let (flights, work) = (self.clone(), tokio::spawn(flight));
        tokio::spawn(async move {
            let landing = work.await.unwrap_or_else(|_| Err(panicked(&target)));
            flights.flying.lock().remove(&target);
            landed.send_replace(Some(landing));
        });
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

/// A flight about to begin.
struct Departing {
    flight: Flight,
    journey: Journey,
    landed: watch::Sender<Option<Landing>>,
}

/// A request that waits for a load.
pub(crate) struct Passenger {
    target: TargetModel,
    flight: Flight,
    metrics: CacheMetrics,
    since: Instant,
}

impl Passenger {
    /// Waits for the load to end, for the request's own deadline, or until the load is overdue; not at all once the load is
    /// not expected to end in time.
    ///
    /// # Errors
    /// What the load ended in; Loading when it is expected to take longer than the request may, DeadlineExceeded when it does
    /// (the load goes on either way, and the error says when to come again).
    pub(crate) async fn land(mut self, deadline: Option<Instant>) -> Landing {
        let until = deadline.map_or(self.flight.due, |deadline| deadline.min(self.flight.due));
        let mut estimate = self.flight.estimate.clone();
        let landed = self.flight.landing.wait_for(Option::is_some);
        tokio::select! {
            biased;
            landed = timeout_at(until.into(), landed) => match landed {
                Ok(Ok(landing)) => landing.clone().expect("invariant: waited for"),
                Ok(Err(_)) => Err(panicked(&self.target)),
                Err(_) => Err(late(&self.target, self.flight.estimate.borrow().remaining(now()))),
            },
            remaining = past(deadline, &mut estimate) => Err(not_in_time(&self.target, remaining)),
        }
    }
}

impl Drop for Passenger {
    fn drop(&mut self) {
        self.metrics.waiting(-1.0);
        self.metrics.waited(now() - self.since);
    }
}

/// Resolves as soon as the load is expected to end after the deadline: to what is left of it then.
async fn past(deadline: Option<Instant>, estimate: &mut watch::Receiver<Estimate>) -> Duration {
    while let Some(deadline) = deadline {
        let now = now();
        match estimate.borrow_and_update().remaining(now) {
            Some(remaining) if remaining > deadline.saturating_duration_since(now) => return remaining,
            _ => {}
        }
        if estimate.changed().await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

fn not_in_time(target: &TargetModel, remaining: Duration) -> Error {
    let seconds = remaining.as_secs_f64();
    Error::new(
        ErrorKind::Loading,
        format!(
            "'{target}' is being loaded, which is expected to take {seconds:.1} s more, longer than the request may wait; \
             the load goes on, try again later"
        ),
    )
    .with_retry_after(remaining)
    .with_model(target.as_str())
}

fn late(target: &TargetModel, remaining: Option<Duration>) -> Error {
    Error::deadline_exceeded(format!(
        "Request timeout expired while '{target}' is being loaded; the load goes on, try again later"
    ))
    .with_retry_after(remaining.unwrap_or_default())
    .with_model(target.as_str())
}

fn panicked(target: &TargetModel) -> Error {
    Error::internal(format!("loading '{target}' panicked; see the server's log")).with_model(target.as_str())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn flights(queue_size: usize, longest: Duration) -> Arc<Flights> {
        Flights::new(queue_size, longest, Forecast::new(NonZeroUsize::MIN, NonZeroUsize::MIN), CacheMetrics)
    }

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
        let (flights, departures) = (flights(100, HOUR), Arc::new(AtomicUsize::new(0)));
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
        let flights = flights(1, HOUR);
        let board = || flights.board(&target(), Priority::Interactive, |_| slow(Arc::default()));
        let first = board().expect("room for one");
        assert_eq!(board().err().expect("no room for two").kind(), ErrorKind::Overloaded);
        let deadline = now() + Duration::from_secs(1);
        assert_eq!(first.land(Some(deadline)).await.err().expect("late").kind(), ErrorKind::DeadlineExceeded);
        assert!(board().is_ok(), "who gave up waits no longer");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_load_that_hangs_past_its_time() {
        let flights = flights(10, Duration::from_secs(5));
        let board = || flights.board(&target(), Priority::Interactive, |_| std::future::pending()).expect("room");
        assert_eq!(board().land(None).await.err().expect("overdue").kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(flights.targets(), [target()], "it is still the archive's one flight");
        assert!(!flights.are_asked_for(), "nobody waits for it");
        let other = TargetModel::new("b.tar.gz").expect("valid");
        let _passenger = flights.board(&other, Priority::Interactive, |_| std::future::pending()).expect("room");
        assert!(flights.are_asked_for());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_the_flight_for_everyone() {
        let flights = flights(10, HOUR);
        let passenger =
            flights.board(&target(), Priority::Interactive, |_| async { panic!("in a loader") }).expect("room");
        assert_eq!(passenger.land(None).await.err().expect("panicked").kind(), ErrorKind::Internal);
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_be_served_in_time_is_told_so_at_once_and_when() {
        let flights = flights(10, HOUR);
        let board = || {
            flights.board(&target(), Priority::Interactive, |journey| async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                journey.loading(1);
                let started = now();
                tokio::time::sleep(Duration::from_secs(9)).await;
                journey.loaded(1, now() - started);
                Err(Error::no_room("full"))
            })
        };
        let land = |seconds| {
            let passenger = board().expect("room");
            passenger.land(Some(now() + Duration::from_secs(seconds)))
        };
        // Nobody knows yet.
        let error = land(5).await.err().expect("late");
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::DeadlineExceeded, Some(Duration::ZERO)));
        assert_eq!(land(60).await.err().expect("fails").kind(), ErrorKind::NoRoom);
        // Now it is known, from the first moment on.
        let started = now();
        let error = land(5).await.err().expect("too long");
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Loading, Some(Duration::from_secs(9))));
        assert_eq!(now(), started, "at once");
        assert_eq!(flights.targets(), [target()], "the load goes on");
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(land(5).await.err().expect("waited for").kind(), ErrorKind::NoRoom, "it is expected in time by now");
    }
}

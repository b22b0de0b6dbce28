//! Makes room in memory: asks the residency for a plan and carries it out, unloading off the threads that carry requests.

mod evicted;
mod unload_reason;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use inference::{Error, MemoryUsage, Result};
use parking_lot::Mutex;
use repository::Background;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

use crate::blocking;
use crate::churn::Churn;
use crate::clock::now;
use crate::config::{AfterUnload, ModelCacheConfig};
use crate::displaced::Displaced;
use crate::eviction::{RoomPlan, Shortage};
use crate::loaded::{LoadedArchive, Pin};
use crate::metrics::CacheMetrics;
use crate::placement::{Choice, Demand, choose};
use crate::residency::{Arrival, Residency};
use crate::room_signal::RoomSignal;
use crate::route::ArchiveKey;
use crate::unasked::no_room_unasked;

pub(crate) use unload_reason::UnloadReason;

/// How many loads that fit as it is may go ahead of one that waits for room. More, and a large archive might wait for ever
/// while small ones take what becomes free.
const MAX_OVERTAKES: u32 = 16;

/// How often a load that waits for room looks for it unasked: a sequence that ends by being idle raises no signal.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What has just been loaded is protected for at most this part of the time that a load waits for room.
const PROTECTED_PART: u32 = 4;

/// A load heeds protection for this part of the time that it waits. What was loaded by those ahead of it in line is protected
/// one after the other; that alone must refuse nobody.
const PATIENT_PART: u32 = 2;

/// How often it is looked whether the working set fits when nothing is loaded.
const WATCH_INTERVAL: Duration = Duration::from_secs(15);

/// The residency with what carries its plans out. The lock is held for look-ups and book-keeping only, never while
/// something loads, unloads or waits.
pub(crate) struct Room {
    residency: Mutex<Residency>,
    signal: Arc<RoomSignal>,
    /// One load at a time makes room, in order of arrival.
    turn: Semaphore,
    /// How many loads have gone ahead of the one whose turn it is, because they fit as it was.
    overtakes: AtomicU32,
    /// What unloads after the last change of the budget.
    shrinking: Mutex<Option<AbortHandle>>,
    churn: Churn,
    /// What had to leave a GPU and could be on the host.
    displaced: Mutex<Displaced>,
    metrics: CacheMetrics,
    pub(crate) background: Background,
    after_unload: AfterUnload,
}

impl Room {
    pub(crate) fn new(config: &ModelCacheConfig, metrics: CacheMetrics) -> Arc<Self> {
        let longest_protection = config.room_timeout / PROTECTED_PART;
        let residency = Residency::new(config.budget.clone(), config.eviction_policy, longest_protection);
        metrics.start(&residency);
        let churn = Churn::new();
        churn.tell(&residency.held(), now());
        Arc::new(Room {
            residency: Mutex::new(residency),
            signal: Arc::default(),
            turn: Semaphore::new(1),
            overtakes: AtomicU32::new(0),
            shrinking: Mutex::default(),
            churn,
            displaced: Mutex::default(),
            metrics,
            background: config.background.clone(),
            after_unload: config.after_unload.clone(),
        })
    }

    /// Pins an archive that is in memory, for a request that uses it.
    pub(crate) fn pin(&self, key: &ArchiveKey) -> Option<Pin> {
        let now = now();
        let mut residency = self.residency.lock();
        let archive = residency.touch(key, now)?.clone();
        Some(Pin::new(archive, self.signal.clone()))
    }

    /// Pins an archive that is in memory, for whoever only looks after it.
    pub(crate) fn pin_unused(&self, key: &ArchiveKey) -> Option<Pin> {
        let residency = self.residency.lock();
        Some(Pin::new(residency.peek(key)?.clone(), self.signal.clone()))
    }

    /// Whether new requests for its key find this very archive.
    pub(crate) fn is_resident(&self, pin: &Pin) -> bool {
        is_resident(&self.residency.lock(), pin)
    }

    /// Publishes by how much memory is too small for what is asked for, from time to time.
    pub(crate) async fn watch_churn(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            self.churn.tell(&self.read(Residency::held), now());
        }
    }

    /// Decides whether the archive behind a pin may be evicted once nobody uses it.
    pub(crate) fn keep(&self, pin: &Pin, is_kept: bool) {
        let mut residency = self.residency.lock();
        if is_resident(&residency, pin) {
            residency.keep(&pin.key, is_kept);
        }
    }

    /// Looks at the residency under its lock.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Residency) -> T) -> T {
        look(&self.residency.lock())
    }

    /// Holds what a load asks for, where it fits best, evicting as necessary, and waiting up to `patience` for pins to be
    /// released.
    ///
    /// # Errors
    /// NoRoom, saying which device is too small and what holds it.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        key: &ArchiveKey,
        demand: impl Into<Demand>,
        patience: Duration,
    ) -> Result<Reservation> {
        let demand = demand.into();
        let may_overtake = self.overtakes.fetch_add(1, Ordering::Relaxed) < MAX_OVERTAKES;
        let held = if may_overtake { self.hold_if_it_fits(&demand) } else { None };
        let choice = match held {
            Some(choice) => choice,
            None => self.make_room(key, &demand, patience).await?,
        };
        Ok(self.reservation(choice))
    }

    /// Holds `need` for a model that grows, if that takes no eviction and nobody waits for room.
    pub(crate) fn reserve_if_it_fits(self: &Arc<Self>, need: MemoryUsage) -> Option<Reservation> {
        Some(self.reservation(self.hold_free(&need.into())?))
    }

    /// The same for a load, wherever it fits best.
    ///
    /// # Errors
    /// NoRoom where that gives nothing.
    pub(crate) fn reserve_free(self: &Arc<Self>, key: &ArchiveKey, demand: &Demand) -> Result<Reservation> {
        self.hold_free(demand).map(|choice| self.reservation(choice)).ok_or_else(|| nothing_free(key))
    }

    /// What `tell` says of each archive in memory, the one that should leave last first.
    pub(crate) fn by_worth<T>(&self, tell: impl Fn(&LoadedArchive) -> Option<T>) -> Vec<T> {
        self.residency.lock().by_worth(tell)
    }

    fn reservation(self: &Arc<Self>, choice: Choice) -> Reservation {
        Reservation { room: self.clone(), usage: choice.usage, ways: choice.ways }
    }

    /// Holds what is asked for if that takes no eviction and nobody waits for room.
    fn hold_free(&self, demand: &Demand) -> Option<Choice> {
        // Who has the turn collects what becomes free.
        let is_calm = self.turn.available_permits() > 0;
        if is_calm { self.hold_if_it_fits(demand) } else { None }
    }

    /// Holds what is asked for if that takes no eviction.
    fn hold_if_it_fits(&self, demand: &Demand) -> Option<Choice> {
        let mut residency = self.residency.lock();
        let choice = choose(demand, &residency.held(), MemoryUsage::default);
        residency.fits(&choice.usage).then(|| {
            residency.hold(&choice.usage);
            self.metrics.used(&residency);
            choice
        })
    }

    async fn make_room(self: &Arc<Self>, key: &ArchiveKey, demand: &Demand, patience: Duration) -> Result<Choice> {
        let begin = tokio::time::Instant::now();
        let (deadline, patient_until) = (begin + patience, begin + patience / PATIENT_PART);
        let _turn = timeout_at(deadline, self.turn.acquire())
            .await
            .map_err(|_| Error::no_room(format!("no room for {key}: other loads wait for room in memory as well")))?
            .expect("invariant: never closed");
        self.overtakes.store(0, Ordering::Relaxed);
        let waiting = self.signal.wait();
        loop {
            let raised = waiting.next();
            let is_patient = tokio::time::Instant::now() < patient_until;
            match self.step(demand, is_patient) {
                Step::Held(choice) => return Ok(choice),
                Step::Evict(victims) => self.unload_all(victims, UnloadReason::Room).await,
                Step::Refuse(shortage) => return Err(no_room(key, shortage, NEVER_FITS)),
                Step::Wait(shortage, look_again) => {
                    let again = deadline.min(look_again.into());
                    if timeout_at(again, raised).await.is_err() && again == deadline {
                        return Err(no_room(key, shortage, IN_USE));
                    }
                }
            }
        }
    }

    /// Changes how much models may take. What is held beyond that is unloaded as soon as nobody uses it.
    pub(crate) fn set_budget(self: &Arc<Self>, budget: MemoryUsage) {
        let mut residency = self.residency.lock();
        residency.set_budget(budget);
        self.metrics.budget(residency.budget());
        drop(residency);
        self.signal.raise();
        let shrinking = tokio::spawn(keep_to_budget(Arc::downgrade(self))).abort_handle();
        if let Some(earlier) = self.shrinking.lock().replace(shrinking) {
            earlier.abort();
        }
    }

    /// Decides where what is asked for goes, plans and does what can be done under the lock, in one go.
    fn step(&self, demand: &Demand, is_patient: bool) -> Step {
        let mut residency = self.residency.lock();
        let now = now();
        let choice = choose(demand, &residency.held(), || residency.evictable(is_patient, now));
        match residency.plan(&choice.usage, is_patient, now) {
            RoomPlan::Fits => {
                residency.hold(&choice.usage);
                self.metrics.used(&residency);
                Step::Held(choice)
            }
            RoomPlan::Evict(victims) => {
                Step::Evict(victims.iter().filter_map(|victim| residency.begin_unload(victim)).collect())
            }
            RoomPlan::Blocked(shortage) => {
                let look_again = now + LOOK_AGAIN;
                Step::Wait(shortage, residency.next_unprotected(now).map_or(look_again, |end| end.min(look_again)))
            }
            RoomPlan::Never(shortage) => Step::Refuse(shortage),
        }
    }

    /// Unloads the first archive in order that nobody pins and that keeps files on disk; `false` when there is none.
    /// Blocks.
    pub(crate) fn evict_for_disk(&self) -> bool {
        let Some(archive) = self.residency.lock().begin_unload_of_files(now()) else { return false };
        let (key, usage, started) = (archive.key.clone(), archive.usage.clone(), Instant::now());
        drop(archive);
        self.after_unload.call();
        self.finish_unload(&key, &usage, UnloadReason::Disk, started.elapsed());
        true
    }

    /// Withdraws this very archive from new requests at once, and unloads it when its pins are gone.
    pub(crate) fn discard(self: &Arc<Self>, pin: &Pin, reason: UnloadReason) {
        self.not_wanted(&pin.key);
        let mut residency = self.residency.lock();
        let withdrawn = if is_resident(&residency, pin) { residency.withdraw(&pin.key) } else { None };
        drop(residency);
        withdrawn.into_iter().for_each(|archive| self.retire_later(archive, reason));
    }

    /// Withdraws an archive from new requests at once, and unloads it when its pins are gone. `false` when it is not
    /// resident.
    pub(crate) fn begin_remove(self: &Arc<Self>, key: &ArchiveKey, reason: UnloadReason) -> bool {
        self.not_wanted(key);
        let Some(archive) = self.residency.lock().withdraw(key) else { return false };
        self.retire_later(archive, reason);
        true
    }

    fn retire_later(self: &Arc<Self>, archive: Arc<LoadedArchive>, reason: UnloadReason) {
        let room = self.clone();
        tokio::spawn(async move { room.retire(archive, reason).await });
    }

    /// Withdraws an archive from new requests, waits for its pins to go, and unloads it. `false` when it is not resident.
    pub(crate) async fn remove(self: &Arc<Self>, key: &ArchiveKey, reason: UnloadReason) -> bool {
        self.not_wanted(key);
        let Some(archive) = self.residency.lock().withdraw(key) else { return false };
        let room = self.clone();
        // A task of its own: the caller may go away, the unload must be finished and counted all the same.
        let retiring = tokio::spawn(async move { room.retire(archive, reason).await });
        if retiring.await.is_err() {
            tracing::error!(archive = %key, "unloading panicked; its memory may not be free");
        }
        true
    }

    async fn retire(self: &Arc<Self>, archive: Arc<LoadedArchive>, reason: UnloadReason) {
        self.wait_until_unpinned(&archive).await;
        self.unload_all(vec![archive], reason).await;
    }

    async fn wait_until_unpinned(&self, archive: &Arc<LoadedArchive>) {
        let waiting = self.signal.wait();
        loop {
            let raised = waiting.next();
            if Arc::strong_count(archive) == 1 {
                return;
            }
            raised.await;
        }
    }

    /// Unloads in a task of its own, so that it is finished and counted even when the caller goes away.
    async fn unload_all(self: &Arc<Self>, archives: Vec<Arc<LoadedArchive>>, reason: UnloadReason) {
        // More memory would not have kept what leaves for another reason.
        if reason == UnloadReason::Room {
            archives.iter().for_each(|archive| self.evicted(archive));
        }
        let room = self.clone();
        let unloading = tokio::spawn(async move {
            for archive in archives {
                room.unload(archive, reason).await;
            }
        });
        if unloading.await.is_err() {
            tracing::error!("a model panicked while it was unloaded; its memory may not be free");
        }
    }

    async fn unload(self: &Arc<Self>, archive: Arc<LoadedArchive>, reason: UnloadReason) {
        let (key, usage, started) = (archive.key.clone(), archive.usage.clone(), Instant::now());
        let after_unload = self.after_unload.clone();
        let dropped = blocking::spawn(&self.background, move || {
            drop(archive);
            after_unload.call();
        })
        .await;
        let elapsed = started.elapsed();
        if dropped.is_err() {
            self.metrics.unload_failed();
            tracing::error!(archive = %key, "a model panicked while it was unloaded; its memory may not be free");
        }
        self.finish_unload(&key, &usage, reason, elapsed);
    }

    fn finish_unload(&self, key: &ArchiveKey, usage: &MemoryUsage, reason: UnloadReason, elapsed: Duration) {
        tracing::info!(archive = %key, reason = reason.label(), seconds = elapsed.as_secs_f64(), "unloaded");
        self.metrics.unloaded(reason, usage, elapsed);
        let mut residency = self.residency.lock();
        residency.unloaded(key, usage);
        self.metrics.used(&residency);
        drop(residency);
        self.signal.raise();
    }
}

/// Unloads what is held beyond the budget until nothing is, or the room is gone.
async fn keep_to_budget(room: Weak<Room>) {
    while let Some(room) = room.upgrade() {
        let again = match room.step(&MemoryUsage::default().into(), true) {
            Step::Held(_) | Step::Refuse(_) => return,
            Step::Evict(victims) => {
                room.unload_all(victims, UnloadReason::Room).await;
                continue;
            }
            Step::Wait(_, again) => again,
        };
        drop(room);
        // Not with each pin that is dropped: what stays may be in use for good, beside others that are asked for all the time.
        tokio::time::sleep_until(again.into()).await;
    }
}

fn is_resident(residency: &Residency, pin: &Pin) -> bool {
    residency.peek(&pin.key).is_some_and(|resident| pin.is(resident))
}

enum Step {
    Held(Choice),
    Evict(Vec<Arc<LoadedArchive>>),
    /// Until something is let go of, or the time has come to look again.
    Wait(Shortage, Instant),
    Refuse(Shortage),
}

/// Memory held for a load; given back when dropped, unless the load became resident.
pub(crate) struct Reservation {
    room: Arc<Room>,
    usage: MemoryUsage,
    ways: Vec<usize>,
}

impl Reservation {
    /// How each model of what was asked for is to be placed.
    pub(crate) fn ways(&self) -> &[usize] {
        &self.ways
    }

    /// Corrects what is held to what the load really took. More is made room for with `patience`, or for `None` taken only
    /// where nobody has to leave.
    ///
    /// # Errors
    /// NoRoom when it took more than can be had.
    pub(crate) async fn correct(
        &mut self,
        key: &ArchiveKey,
        actual: &MemoryUsage,
        patience: Option<Duration>,
    ) -> Result<()> {
        if let Some(shortage) = self.room.residency.lock().never_fits(actual) {
            return Err(no_room(key, shortage, NEVER_FITS));
        }
        let mut more = actual.clone();
        more.remove_all(&self.usage);
        if more.iter().next().is_some() {
            let demand = more.clone().into();
            if self.room.hold_if_it_fits(&demand).is_none() {
                let patience = patience.ok_or_else(|| nothing_free(key))?;
                self.room.make_room(key, &demand, patience).await?;
            }
            self.usage.add_all(&more);
        }
        let mut less = self.usage.clone();
        less.remove_all(actual);
        self.room.residency.lock().release(&less);
        self.usage.remove_all(&less);
        self.room.signal.raise();
        Ok(())
    }

    /// Makes the archive resident and pins it; what it takes must have been held by [`Reservation::correct`]. What served
    /// under its key until now is found no longer, and unloaded when its pins are gone.
    ///
    /// # Errors
    /// All of it again when it was to take the place of `replaces`, which has left, or holds something between requests.
    pub(crate) fn commit(
        mut self,
        archive: LoadedArchive,
        arrival: Arrival,
        replaces: Option<&Pin>,
    ) -> Result<Pin, Box<(Self, LoadedArchive)>> {
        debug_assert_eq!(self.usage, archive.usage);
        let room = self.room.clone();
        let mut residency = room.residency.lock();
        if replaces.is_some_and(|old| !is_resident(&residency, old) || old.is_busy()) {
            drop(residency);
            return Err(Box::new((self, archive)));
        }
        self.usage = MemoryUsage::default();
        let archive = Arc::new(archive);
        let replaced = residency.insert(archive.clone(), arrival, now());
        room.metrics.used(&residency);
        let held = residency.held();
        drop(residency);
        // What nobody has asked for has not come back, nor has what was there all the time.
        match arrival.is_unasked || arrival.is_renewal && replaced.is_some() {
            false => room.churn.loaded(&archive.key, arrival.load, &held, now()),
            true => room.churn.tell(&held, now()),
        }
        replaced.into_iter().for_each(|replaced| room.retire_later(replaced, UnloadReason::Replaced));
        Ok(Pin::new(archive, room.signal.clone()))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut residency = self.room.residency.lock();
        residency.release(&self.usage);
        self.room.metrics.used(&residency);
        drop(residency);
        self.room.signal.raise();
    }
}

fn nothing_free(key: &ArchiveKey) -> Error {
    no_room_unasked(format!("no room for {key} but for what others would have to leave"))
}

const IN_USE: &str = "everything else is in use; raise --model-memory or --gpu-memory, or try again later";
const NEVER_FITS: &str = "it can never fit; raise --model-memory or --gpu-memory (or, where the estimate is wrong, state the size in \
                          the parameter memory_bytes)";

fn no_room(key: &ArchiveKey, shortage: Shortage, advice: &str) -> Error {
    let Shortage { device, needed, budget, free, held } = shortage;
    Error::no_room(format!(
        "no room for {key} on {device}: it needs {needed} bytes, {free} of {budget} are free and {held} are in use; {advice}"
    ))
}

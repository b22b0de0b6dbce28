//! The simulated world: clients, operators and budgets around the real room, flights and loads, and what must always hold.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use inference::{CacheOutcome, CacheTier, Device, MemoryUsage, Result, TargetModel};
use parking_lot::Mutex;
use repository::{Background, Priority, Repository};
use scheduler::{MetricOptions, ModelLabels, SchedulerConfig, StreamConfig};
use test_util::dice::Dice;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use super::backend::{DiceBackend, GPUS, is_in_its_place, may_be_anywhere, repository};
use super::events::{End, Events};
use crate::archive_load::{ArchiveLoads, Source};
use crate::backends::Backends;
use crate::clock::now;
use crate::config::{AfterUnload, ModelCacheConfig, RepositoryConfig};
use crate::flight::{Flights, Landing, Passenger};
use crate::forecast::Forecast;
use crate::loaded::{Files, Pin};
use crate::loader::Loader;
use crate::metrics::CacheMetrics;
use crate::policy::EvictionPolicy;
use crate::residency::Residency;
use crate::room::{Room, UnloadReason};
use crate::route::ArchiveKey;

const ARCHIVES: usize = 24;
const DEVICES: [Device; 4] = [Device::Host, Device::Gpu(0), Device::Gpu(1), Device::Gpu(2)];
pub(super) const LOAD_TIMEOUT: Duration = Duration::from_secs(5);
const VERSION: &str = "1";
/// Nobody waits longer for a load.
const LONGEST: Duration = Duration::from_secs(12);

/// What clients share.
struct Shared {
    room: Arc<Room>,
    flights: Arc<Flights>,
    loads: Arc<ArchiveLoads>,
    archives: Vec<Archive>,
    events: Mutex<Events>,
    start: Instant,
}

struct Archive {
    target: TargetModel,
    repository: Repository,
    is_flying: AtomicBool,
    /// How often somebody asked for it to go.
    removals: AtomicU64,
}

impl Archive {
    fn key(&self) -> ArchiveKey {
        ArchiveKey::Target(self.target.clone())
    }
}

impl Shared {
    /// A flight begins. What is wrong is noted: a panic would only be the flight's own.
    fn take_off(&self, archive: &Archive) {
        if archive.is_flying.swap(true, Ordering::Relaxed) {
            self.events.lock().wrong.push(format!("two flights of {} at once", archive.target));
        }
    }
}

/// In the quiet after a run: archives that may be anywhere are loaded while there is no GPU, and move once there is one.
impl Shared {
    async fn move_all(self: &Arc<Self>) {
        let mut budget = MemoryUsage::on(Device::Host, 10_000);
        self.room.set_budget(budget.clone());
        let are_gpus_free = || self.room.read(|r| GPUS.iter().all(|ordinal| r.used(Device::Gpu(*ordinal)) == 0));
        within(Duration::from_secs(600), "GPUs are free", are_gpus_free).await;
        let anywhere: Vec<usize> = (0..self.archives.len()).filter(|index| may_be_anywhere(*index)).collect();
        for index in &anywhere {
            until_done(|| {
                let shared = self.clone();
                let target = &self.archives[*index].target;
                self.flights.board(target, Priority::Interactive, |_| fly(shared, *index))
            })
            .await;
        }
        GPUS.iter().for_each(|ordinal| budget.add(Device::Gpu(*ordinal), 100));
        self.room.set_budget(budget);
        for index in anywhere {
            until_done(|| {
                let (shared, archive) = (self.clone(), &self.archives[index]);
                let pin = self.room.pin_unused(&archive.key()).expect("nobody unloads it");
                self.flights.board_unasked(&archive.target, |_| fly_to_gpu(shared, index, pin))
            })
            .await;
        }
    }
}

/// Flies until the dice let it land.
async fn until_done(board: impl Fn() -> Result<Passenger>) {
    for _ in 0..100 {
        if board().expect("nobody else flies").land(None).await.is_ok() {
            return;
        }
        // What hung may still be under way.
        tokio::time::sleep(LOAD_TIMEOUT * 3).await;
    }
    panic!("a hundred loads have failed");
}

pub(super) struct World {
    shared: Arc<Shared>,
    dice: Dice,
    requests: JoinSet<()>,
    clients: Vec<AbortHandle>,
    /// By device: no more may be held than this.
    ceilings: [u64; DEVICES.len()],
}

impl World {
    pub(super) fn new(seed: u64, policy: EvictionPolicy) -> Self {
        let (config, metrics) = (config(policy), CacheMetrics);
        let room = Room::new(&config, metrics);
        let labels = Arc::new(ModelLabels::new(config.metrics_model_limit, config.metric_options));
        let loader = Loader::new(Backends::new([Arc::new(DiceBackend) as _]), labels, &config);
        let archive = |index| Archive {
            target: TargetModel::new(&format!("{index}.tar.gz")).expect("valid"),
            repository: repository(index),
            is_flying: AtomicBool::new(false),
            removals: AtomicU64::new(0),
        };
        let forecast = Forecast::new(config.download_concurrency, config.load_concurrency);
        let shared = Shared {
            loads: ArchiveLoads::new(room.clone(), Arc::new(loader), &config),
            flights: Flights::new(config.load_queue_size, LONGEST, forecast, metrics),
            room,
            archives: (0..ARCHIVES).map(archive).collect(),
            events: Mutex::default(),
            start: now(),
        };
        let (dice, ceilings) = (Dice::new(seed), DEVICES.map(|device| config.budget.get(device)));
        World { shared: Arc::new(shared), dice, requests: JoinSet::new(), clients: Vec::new(), ceilings }
    }

    /// One thing happens, or time passes.
    pub(super) async fn step(&mut self) {
        match self.dice.below(1000) {
            0..500 => self.ask(),
            500..550 => self.go_away(),
            550..555 => self.remove(),
            555..558 => self.crash(),
            558..560 => self.change_budget(),
            560..570 => self.relocate(),
            _ => tokio::time::sleep(self.dice.millis(1, 100)).await,
        }
        tokio::task::yield_now().await;
    }

    /// A client asks for an archive, and uses it for a while.
    fn ask(&mut self) {
        // The lower, the more popular.
        let archive = self.dice.below(ARCHIVES).min(self.dice.below(ARCHIVES));
        let hold = if self.dice.below(50) == 0 { self.dice.millis(1000, 8000) } else { self.dice.millis(0, 200) };
        let deadline = (self.dice.below(20) == 0).then(|| now() + self.dice.millis(10, 1000));
        self.shared.events.lock().requests += 1;
        let request = Request { shared: self.shared.clone(), archive, end: End::Gone };
        self.clients.push(self.requests.spawn(request.run(hold, deadline)));
    }

    /// A client goes away, if it is still there.
    fn go_away(&mut self) {
        if let Some(last) = self.clients.len().checked_sub(1) {
            let recent = last - self.dice.below(16).min(last);
            self.clients.swap_remove(recent).abort();
        }
        if self.clients.len() > 4096 {
            self.clients.retain(|client| !client.is_finished());
        }
    }

    /// An operator has an archive unloaded.
    fn remove(&mut self) {
        let archive = &self.shared.archives[self.dice.below(ARCHIVES)];
        archive.removals.fetch_add(1, Ordering::Relaxed);
        let removed = self.shared.room.begin_remove(&archive.key(), UnloadReason::Request);
        self.shared.events.lock().removals += u64::from(removed);
    }

    /// A model crashes while somebody uses it.
    fn crash(&mut self) {
        let archive = &self.shared.archives[self.dice.below(ARCHIVES)];
        if let Some(pin) = self.shared.room.pin(&archive.key()) {
            archive.removals.fetch_add(1, Ordering::Relaxed);
            self.shared.room.discard(&pin, UnloadReason::Crash);
            self.shared.events.lock().crashes += 1;
        }
    }

    /// An archive that is on the host and may be on a GPU moves there.
    fn relocate(&mut self) {
        let movable = |archive: &&Archive| {
            let residency = |r: &Residency| r.peek(&archive.key()).is_some_and(|resident| resident.elsewhere.on_gpu);
            self.shared.room.read(residency)
        };
        let Some(index) = self.shared.archives.iter().position(|archive| movable(&archive)) else { return };
        let archive = &self.shared.archives[index];
        let Some(pin) = self.shared.room.pin_unused(&archive.key()) else { return };
        let shared = self.shared.clone();
        // Where somebody loads it already, there is nothing to move.
        let _ = self.shared.flights.board_unasked(&archive.target, |_| fly_to_gpu(shared, index, pin));
    }

    fn change_budget(&mut self) {
        let mut budget = MemoryUsage::on(Device::Host, self.dice.between(25, 130));
        GPUS.iter().for_each(|ordinal| budget.add(Device::Gpu(*ordinal), self.dice.between(25, 120)));
        self.shared.room.set_budget(budget);
        self.shared.events.lock().budgets += 1;
    }

    /// No budget is exceeded, but by what was held when it shrank; no request ended otherwise than it should.
    pub(super) fn check(&mut self) {
        let mut is_over = false;
        for (device, ceiling) in DEVICES.into_iter().zip(&mut self.ceilings) {
            let (used, budget) =
                self.shared.room.read(|residency| (residency.used(device), residency.budget().get(device)));
            assert!(
                used <= budget.max(*ceiling),
                "{used} bytes are held on {device}, {ceiling} a step before, of {budget}"
            );
            is_over |= used > budget;
            *ceiling = used.max(budget);
        }
        let mut events = self.shared.events.lock();
        assert!(events.wrong.is_empty(), "{:?}", events.wrong);
        events.over_budget += u64::from(is_over);
        drop(events);
        while let Some(ended) = self.requests.try_join_next() {
            propagate(ended);
        }
    }

    /// Nobody asks any more: everything comes to its end.
    pub(super) async fn end(mut self) -> Events {
        while let Some(ended) = self.requests.join_next().await {
            propagate(ended);
        }
        let shared = &self.shared;
        within(Duration::from_secs(600), "flights end", || shared.flights.targets().is_empty()).await;
        let is_balanced = |device| {
            let of_resident = |r: &crate::residency::Residency| r.iter().map(|a| a.usage.get(device)).sum::<u64>();
            shared.room.read(|residency| residency.used(device) == of_resident(residency))
        };
        within(Duration::from_secs(600), "only what is resident is held", || DEVICES.into_iter().all(is_balanced))
            .await;
        shared.move_all().await;
        within(Duration::from_secs(600), "what was moved is gone", || DEVICES.into_iter().all(is_balanced)).await;
        for archive in &shared.archives {
            shared.room.remove(&archive.key(), UnloadReason::Shutdown).await;
        }
        assert!(
            DEVICES.into_iter().all(|device| shared.room.read(|r| r.used(device) == 0)),
            "all memory is free again"
        );
        std::mem::take(&mut *shared.events.lock())
    }
}

/// A client's request; counts its end however it comes.
struct Request {
    shared: Arc<Shared>,
    archive: usize,
    end: End,
}

impl Request {
    async fn run(mut self, hold: Duration, deadline: Option<Instant>) {
        let (shared, began) = (self.shared.clone(), now());
        let archive = &shared.archives[self.archive];
        let (pin, end) = match shared.room.pin(&archive.key()) {
            Some(pin) => (pin, End::Found),
            None => {
                let landed = self.wait(deadline).await;
                assert!(
                    now() - began <= LONGEST + Duration::from_millis(1),
                    "a request waited for {:?}",
                    now() - began
                );
                match landed {
                    Ok((pin, _)) => (pin, End::Waited),
                    Err(error) => {
                        self.end = End::Failed(error.kind());
                        return;
                    }
                }
            }
        };
        assert!(is_in_its_place(self.archive, &pin.usage), "{} is at {:?}", archive.target, pin.usage);
        let removals = archive.removals.load(Ordering::Relaxed);
        let was_resident = is_resident(&shared.room, &pin);
        tokio::time::sleep(hold).await;
        let was_removed = archive.removals.load(Ordering::Relaxed) != removals;
        let stayed = is_resident(&shared.room, &pin);
        assert!(stayed || was_removed || !was_resident, "{} was evicted while it was pinned", archive.target);
        self.end = end;
    }

    async fn wait(&self, deadline: Option<Instant>) -> Landing {
        let (shared, archive) = (self.shared.clone(), self.archive);
        let target = &self.shared.archives[archive].target;
        let passenger = self.shared.flights.board(target, Priority::Interactive, |_| fly(shared, archive))?;
        passenger.land(deadline).await
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.shared.events.lock().ended(self.end, now() - self.shared.start);
    }
}

/// A flight; as `TargetLoads` does it, but what is on disk is at hand.
async fn fly(shared: Arc<Shared>, archive: usize) -> Landing {
    let archive = &shared.archives[archive];
    shared.take_off(archive);
    shared.events.lock().departures += 1;
    let landing = load(&shared, archive).await;
    archive.is_flying.store(false, Ordering::Relaxed);
    landing
}

/// A flight of an archive that is in memory, from the host to a GPU.
async fn fly_to_gpu(shared: Arc<Shared>, archive: usize, pin: Pin) -> Landing {
    let archive = &shared.archives[archive];
    shared.take_off(archive);
    let moved = shared.loads.move_to_gpu(source(archive), &pin, &AtomicU64::default()).await;
    archive.is_flying.store(false, Ordering::Relaxed);
    let moved = moved?;
    if !moved.is_on_gpu() {
        shared.events.lock().wrong.push(format!("{} has moved to {:?}", archive.target, moved.usage));
    }
    // What served until now is not found any more.
    archive.removals.fetch_add(1, Ordering::Relaxed);
    shared.events.lock().moves += 1;
    Ok((moved, outcome(CacheTier::Disk)))
}

fn outcome(tier: CacheTier) -> CacheOutcome {
    CacheOutcome { tier, version: VERSION.into(), load: None }
}

async fn load(shared: &Shared, archive: &Archive) -> Landing {
    if let Some(pin) = shared.room.pin(&archive.key()) {
        return Ok((pin, outcome(CacheTier::Memory)));
    }
    Ok((shared.loads.load(source(archive)).await?, outcome(CacheTier::Disk)))
}

fn source(archive: &Archive) -> Source {
    let repository = archive.repository.clone();
    let read = Box::new(move || -> Result<Repository> { Ok(repository) });
    let (key, files, overdue) = (archive.key(), Files::Foreign, Arc::new(Notify::new()));
    Source {
        key,
        version: VERSION.into(),
        tier: CacheTier::Disk,
        read,
        files,
        members: Vec::new(),
        kept: false,
        urgency: None,
        overdue,
    }
}

fn is_resident(room: &Room, pin: &Pin) -> bool {
    room.read(|residency| residency.peek(&pin.key).is_some_and(|resident| pin.is(resident)))
}

async fn within(limit: Duration, what: &str, holds: impl Fn() -> bool) {
    let deadline = now() + limit;
    while !holds() {
        assert!(now() < deadline, "within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A failed assertion in a task is one of the test.
fn propagate(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Bounds that are met often.
pub(super) fn config(eviction_policy: EvictionPolicy) -> ModelCacheConfig {
    let mut budget = MemoryUsage::on(Device::Host, 80);
    GPUS.iter().for_each(|ordinal| budget.add(Device::Gpu(*ordinal), 70));
    ModelCacheConfig {
        response_cache_bytes: None,
        budget,
        eviction_policy,
        gpus: GPUS.to_vec(),
        store_check_interval: Duration::from_secs(60),
        missing_key_ttl: Duration::ZERO,
        replace_without_room: crate::config::ReplaceWithoutRoom::Keep,
        download_timeout: Duration::from_secs(1),
        load_timeout: LOAD_TIMEOUT,
        room_timeout: Duration::from_secs(4),
        download_concurrency: NonZeroUsize::MIN,
        load_concurrency: NonZeroUsize::new(4).expect("not zero"),
        load_queue_size: 6,
        execution_concurrency: NonZeroUsize::MIN,
        metric_options: MetricOptions::default(),
        rate_limits: None,
        metrics_model_limit: 10,
        repositories: RepositoryConfig::default(),
        scratch: std::env::temp_dir(),
        background: Background::default(),
        after_unload: AfterUnload::default(),
        scheduler: SchedulerConfig {
            max_queue_size: 1,
            infer_timeout: Duration::from_secs(1),
            adaptive_batching: false,
            stream: StreamConfig::DEFAULT,
        },
    }
}

//! Warm restarts: what is in memory is noted on disk as it changes, and loaded again at the next start.

mod record;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use inference::TargetModel;
use parking_lot::Mutex;
use repository::ResidentArchive;

use self::record::record;
use crate::flight::Flights;
use crate::kept::KeptBy;
use crate::loaded::LoadedArchive;
use crate::metrics::CacheMetrics;
use crate::room::Room;
use crate::route::ArchiveKey;
use crate::target_load::TargetLoads;

/// How often it is looked whether something came or went.
const LOOK: Duration = Duration::from_secs(1);
/// In every so many looks the order is looked at as well, which each request changes.
const LOOKS_AT_ORDER: u32 = 10;
/// How often it is looked whether requests still wait for loads of their own.
const YIELD: Duration = Duration::from_millis(20);

/// Notes what is in memory, and loads it again.
pub(crate) struct Restart {
    targets: Arc<TargetLoads>,
    flights: Arc<Flights>,
    room: Arc<Room>,
    concurrency: usize,
    progress: Mutex<Progress>,
    is_stopping: AtomicBool,
    /// What is on disk; held while it is written.
    noted: tokio::sync::Mutex<Vec<ResidentArchive>>,
    /// What is being loaded again, which is on disk as well; held while it is written.
    restoring: tokio::sync::Mutex<Vec<TargetModel>>,
    metrics: CacheMetrics,
}

enum Progress {
    /// What the server before noted is left alone.
    NotBegun,
    /// What is in memory is noted, and behind it what the server before had and this one has not looked at yet.
    Noting(Vec<ResidentArchive>),
    /// Nothing is noted any more.
    Over,
}

impl Restart {
    /// Loads as many at once as leave a slot for a request's own load, where there is more than one.
    pub(crate) fn new(
        targets: Arc<TargetLoads>,
        flights: Arc<Flights>,
        room: Arc<Room>,
        load_slots: NonZeroUsize,
        metrics: CacheMetrics,
    ) -> Arc<Self> {
        let concurrency = (load_slots.get() - 1).clamp(1, 2);
        Arc::new(Restart {
            targets,
            flights,
            room,
            concurrency,
            progress: Mutex::new(Progress::NotBegun),
            is_stopping: AtomicBool::new(false),
            noted: tokio::sync::Mutex::default(),
            restoring: tokio::sync::Mutex::default(),
            metrics,
        })
    }

    /// Loads what was in memory before, and notes from then on what is.
    pub(crate) async fn run(self: Arc<Self>) {
        let before = self.clone();
        let Ok(noted) = tokio::task::spawn_blocking(move || before.targets.archives.disk().noted_resident()).await
        else {
            return;
        };
        *self.noted.lock().await = noted.clone();
        if !self.begin(&noted) {
            return;
        }
        self.pin_again(&noted);
        tokio::join!(self.restore(noted), self.keep_noting());
    }

    /// Pins what clients had pinned, whoever loads it, until they say otherwise.
    fn pin_again(&self, noted: &[ResidentArchive]) {
        for ResidentArchive { target, .. } in noted.iter().filter(|archive| archive.kept) {
            self.targets.kept.keep(target, KeptBy::Name);
            if let Some(pin) = self.room.pin_unused(&ArchiveKey::Target(target.clone())) {
                self.room.keep(&pin, true);
            }
        }
    }

    /// Loads nothing any more, but goes on noting.
    pub(crate) fn stop_restoring(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Notes what is in memory once more, and nothing after that.
    pub(crate) async fn finish(&self) {
        self.stop_restoring();
        let mut noted = self.noted.lock().await;
        self.note(&mut noted).await;
        // Before anybody else can note: what is unloaded from now on was in memory when the server stopped.
        *self.progress.lock() = Progress::Over;
        self.note_restoring(Vec::clear).await;
    }

    /// `false` when it is over already.
    fn begin(&self, noted: &[ResidentArchive]) -> bool {
        let mut progress = self.progress.lock();
        let is_first = matches!(*progress, Progress::NotBegun);
        if is_first {
            *progress = Progress::Noting(noted.to_vec());
        }
        is_first
    }

    async fn restore(&self, noted: Vec<ResidentArchive>) {
        if noted.is_empty() {
            return;
        }
        let (started, count) = (Instant::now(), noted.len());
        let on_disk: HashSet<_> =
            self.targets.archives.disk().entries().into_iter().map(|(target, etag, _)| (target, etag)).collect();
        let (this, on_disk) = (self, &on_disk);
        let each = noted.into_iter().map(async |archive| {
            if !this.turn().await {
                return false;
            }
            let is_there = on_disk.contains(&(archive.target.clone(), archive.etag.clone()));
            let is_restored = is_there && this.restore_one(&archive).await;
            this.done_with(&archive.target);
            is_restored
        });
        let restored: Vec<bool> = stream::iter(each).buffer_unordered(self.concurrency).collect().await;
        let restored = restored.into_iter().filter(|is_restored| *is_restored).count();
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(restored, of = count, seconds, "loaded again what was in memory before");
    }

    /// Lets what is asked for go ahead; `false` when the server stops.
    async fn turn(&self) -> bool {
        while !self.is_stopping.load(Ordering::Relaxed) {
            if !self.flights.are_asked_for() {
                return true;
            }
            tokio::time::sleep(YIELD).await;
        }
        false
    }

    /// Loads one in the room that nobody else holds; `false` where that cannot be.
    async fn restore_one(&self, archive: &ResidentArchive) -> bool {
        if archive.kept && !self.targets.kept.has(&archive.target) {
            // Unloaded by name since the start.
            return false;
        }
        if archive.bytes > self.room.read(|residency| residency.free()) {
            tracing::debug!(target_model = %archive.target, bytes = archive.bytes, "was in memory before, and does not fit now");
            return false;
        }
        self.note_restoring(|restoring| restoring.push(archive.target.clone())).await;
        let is_restored = self.load(archive).await;
        self.note_restoring(|restoring| restoring.retain(|target| *target != archive.target)).await;
        if is_restored {
            self.metrics.restored();
        }
        is_restored
    }

    /// `false` where it was asked for already, or cannot be loaded.
    async fn load(&self, archive: &ResidentArchive) -> bool {
        let mut is_ours = false;
        let passenger = self.flights.board_unasked(&archive.target, |journey| {
            is_ours = true;
            self.targets.clone().load(archive.target.clone(), journey, None)
        });
        // Somebody who asked for it sees to it.
        let Some(passenger) = passenger.ok().filter(|_| is_ours) else { return false };
        passenger.land(None).await.is_ok_and(|(_, outcome)| outcome.load.is_some())
    }

    /// Changes what is noted as being loaded again.
    async fn note_restoring(&self, change: impl FnOnce(&mut Vec<TargetModel>)) {
        let mut restoring = self.restoring.lock().await;
        change(&mut restoring);
        let (targets, now) = (self.targets.clone(), restoring.clone());
        let written = tokio::task::spawn_blocking(move || targets.archives.disk().note_restoring(&now)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "cannot note what is being loaded; the next start would load it again even if it is fatal");
        }
    }

    fn done_with(&self, target: &TargetModel) {
        if let Progress::Noting(pending) = &mut *self.progress.lock() {
            pending.retain(|archive| archive.target != *target);
        }
    }

    fn is_over(&self) -> bool {
        matches!(*self.progress.lock(), Progress::Over)
    }

    async fn keep_noting(&self) {
        let (mut seen, mut looks) = (None, 0u32);
        while !self.is_over() {
            tokio::time::sleep(LOOK).await;
            looks = looks.wrapping_add(1);
            let changes = Some(self.room.read(|residency| residency.changes()));
            if changes != seen || looks.is_multiple_of(LOOKS_AT_ORDER) {
                seen = changes;
                self.note(&mut *self.noted.lock().await).await;
            }
        }
    }

    /// Writes what is in memory, unless that is what is `noted`.
    async fn note(&self, noted: &mut Vec<ResidentArchive>) {
        let pending = match &*self.progress.lock() {
            Progress::Noting(pending) => pending.clone(),
            Progress::NotBegun | Progress::Over => return,
        };
        let kept = &self.targets.kept;
        // What was unloaded by name is not wanted any more; what left, or could not be loaded, stays pinned should it come back.
        let pending = pending.into_iter().filter(|archive| !archive.kept || kept.has(&archive.target));
        let missing = noted.iter().filter(|archive| archive.kept && kept.has_by_name(&archive.target)).cloned();
        let archives = record(self.room.by_worth(|archive| self.tell(archive)), pending.chain(missing));
        if archives == *noted {
            return;
        }
        let (targets, lines) = (self.targets.clone(), archives.clone());
        let written = tokio::task::spawn_blocking(move || targets.archives.disk().note_resident(&lines)).await;
        match written {
            Ok(Ok(())) => *noted = archives,
            Ok(Err(error)) => tracing::warn!(%error, "cannot note what is in memory; the next start may know less"),
            Err(_) => tracing::error!("noting what is in memory panicked"),
        }
    }

    /// What the next start needs to know of an archive; nothing of what the store does not have.
    fn tell(&self, archive: &LoadedArchive) -> Option<ResidentArchive> {
        let (target, files) = archive.of_store()?;
        let bytes = archive.usage.iter().map(|(_, bytes)| bytes).sum();
        let kept = self.targets.kept.has_by_name(target);
        Some(ResidentArchive { target: target.clone(), etag: files.etag().clone(), bytes, kept })
    }
}

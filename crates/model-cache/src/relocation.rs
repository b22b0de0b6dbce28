//! Moves archives between the tiers that GPUs and the host are: what others pushed off a GPU is loaded on the host where it may
//! be there, and what is on the host is loaded on a GPU once there is room. Both in the background, one at a time, behind the
//! loads that somebody asked for, and with nobody evicted for it. Requests go on meanwhile.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use inference::{CacheOutcome, CacheTier, Device, Error, ErrorKind, TargetModel};
use lru::LruCache;
use repository::read_archive;

use crate::archive_load::Source;
use crate::clock::now;
use crate::flight::{Flights, Landing};
use crate::loaded::{Files, Pin};
use crate::metrics::CacheMetrics;
use crate::room::Room;
use crate::route::ArchiveKey;
use crate::target_load::{TargetLoads, stem};
use crate::unasked::unasked;

/// How often it is looked whether something can move.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked whether requests still wait for loads of their own.
const YIELD: Duration = Duration::from_millis(20);
/// How long an archive stays where it is once its move to a GPU was tried, unless there was too little room for it and is
/// enough now.
const BACKOFF: Duration = Duration::from_secs(60);
/// How many such archives are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// A move to a GPU.
#[derive(Clone, Copy)]
struct Try {
    at: Instant,
    /// The bytes that were free on the GPU with most of them.
    free: u64,
    /// The bytes without which it is in vain, as far as that is known.
    needs: u64,
}

impl Try {
    fn is_worth_another(&self, free: u64, now: Instant) -> bool {
        let had_too_few = self.free < self.needs;
        free >= self.needs && (had_too_few || now.saturating_duration_since(self.at) >= BACKOFF)
    }
}

/// Moves target models.
pub(crate) struct Relocation {
    targets: Arc<TargetLoads>,
    flights: Arc<Flights>,
    room: Arc<Room>,
    tried: LruCache<TargetModel, Try>,
    metrics: CacheMetrics,
}

impl Relocation {
    pub(crate) fn new(
        targets: Arc<TargetLoads>,
        flights: Arc<Flights>,
        room: Arc<Room>,
        metrics: CacheMetrics,
    ) -> Self {
        Relocation { targets, flights, room, tried: LruCache::new(REMEMBERED), metrics }
    }

    /// Never ends.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.calm().await;
            while let Some(displaced) = self.room.next_displaced(now()) {
                let is_done = self.move_to_host(&displaced.target).await;
                if is_done {
                    self.room.forget_displaced(&displaced);
                }
                self.calm().await;
            }
            let free = self.room.read(|residency| residency.most_free(|device| device != Device::Host));
            // Pinned from here on: not while others are waited for.
            if let Some(archive) = self.next_for_gpu(free) {
                self.move_to_gpu(archive, free).await;
            }
        }
    }

    /// Lets what is asked for go ahead.
    async fn calm(&self) {
        while self.flights.are_asked_for() {
            tokio::time::sleep(YIELD).await;
        }
    }

    /// Loads an archive again that had to leave a GPU. Where there is room on a GPU by now, that is its place. `false` where
    /// there was no room at all.
    async fn move_to_host(&self, target: &TargetModel) -> bool {
        if self.room.pin_unused(&ArchiveKey::Target(target.clone())).is_some() {
            return true;
        }
        let mut is_ours = false;
        let passenger = self.flights.board_unasked(target, |journey| {
            is_ours = true;
            self.targets.clone().load(target.clone(), journey, None)
        });
        let Some(passenger) = passenger.ok().filter(|_| is_ours) else { return true };
        match passenger.land(None).await {
            Ok((pin, _)) if !pin.is_on_gpu() => self.metrics.moved(Device::Host),
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::NoRoom,
        }
        true
    }

    /// The most valuable archive that is on the host, may be on a GPU, and fits there.
    fn next_for_gpu(&self, free: u64) -> Option<Pin> {
        if free == 0 {
            return None;
        }
        let is_due =
            |target: &TargetModel| self.tried.peek(target).is_none_or(|tried| tried.is_worth_another(free, now()));
        let fitting = self.room.by_worth(|archive| {
            let (target, _) = archive.of_store().filter(|_| archive.elsewhere.on_gpu && !archive.is_busy())?;
            let bytes: u64 = archive.usage.iter().map(|(_, bytes)| bytes).sum();
            (bytes <= free && is_due(target)).then(|| archive.key.clone())
        });
        fitting.first().and_then(|key| self.room.pin_unused(key))
    }

    /// Loads an archive on a GPU beside itself and lets requests switch.
    async fn move_to_gpu(&mut self, archive: Pin, free: u64) {
        let Some((target, _)) = archive.of_store() else { return };
        let target = target.clone();
        let (mut is_ours, needs) = (false, Arc::<AtomicU64>::default());
        let passenger = self.flights.board_unasked(&target, |_| {
            is_ours = true;
            self.targets.clone().move_to_gpu(target.clone(), archive, needs.clone())
        });
        let Some(passenger) = passenger.ok().filter(|_| is_ours) else { return };
        let landing = passenger.land(None).await;
        self.tried.put(target, Try { at: now(), free, needs: needs.load(Ordering::Relaxed) });
        if let Ok((pin, _)) = landing {
            pin.gpus().first().into_iter().for_each(|ordinal| self.metrics.moved(Device::Gpu(*ordinal)));
        }
    }
}

impl TargetLoads {
    /// Loads an archive from the files that it was loaded from, on GPUs where its configuration leaves it open. Says in `needs`
    /// how many bytes a GPU must have free for that at least.
    async fn move_to_gpu(self: Arc<Self>, target: TargetModel, archive: Pin, needs: Arc<AtomicU64>) -> Landing {
        let Some((_, files)) = archive.of_store() else {
            return Err(Error::internal(format!("{target} has no files to load it from")));
        };
        let (files, name) = (files.clone(), stem(&target).to_owned());
        let (version, tier) = (archive.version.clone(), CacheTier::Disk);
        let own = files.clone();
        let source = Source {
            key: archive.key.clone(),
            version: version.clone(),
            tier,
            read: Box::new(move || read_archive(own.path(), &name)),
            files: Files::Cached(files),
            members: Vec::new(),
            kept: self.kept.has(&target),
            urgency: None,
            overdue: Arc::default(),
        };
        // A request that has joined is served by a load wherever there is room.
        let pin = self.loads.move_to_gpu(source, &archive, &needs).await.map_err(unasked)?;
        // Somebody may have changed that during the load.
        self.room.keep(&pin, self.kept.has(&target));
        Ok((pin, CacheOutcome { tier, version, load: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_tried_again_once_there_is_room_and_not_in_vain() {
        let at = Instant::now();
        let (soon, later) = (at + LOOK, at + BACKOFF);
        let had_no_room = Try { at, free: 10, needs: 20 };
        assert!(had_no_room.is_worth_another(20, soon));
        assert!(!had_no_room.is_worth_another(19, later), "more, and not enough");
        let failed_otherwise = Try { at, free: 20, needs: 20 };
        assert!(!failed_otherwise.is_worth_another(30, soon), "it was not for want of room on one GPU");
        assert!(failed_otherwise.is_worth_another(20, later));
    }
}

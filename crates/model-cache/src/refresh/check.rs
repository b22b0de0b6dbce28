//! One check: the store is asked whether it still has what is in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use inference::TargetModel;

use super::Refresh;
use super::missing::Verdict;
use super::outcome::{CheckOutcome, Outcome};
use crate::archives::Current;
use crate::room::UnloadReason;
use crate::route::ArchiveKey;

/// About how many others the store is asked before it is believed to have lost all, and of how many those are chosen.
const WITNESSES: usize = 3;
const CANDIDATES: usize = 64;

/// What has to follow from a check.
pub(super) enum Next {
    /// It is checked again at its place in the next window.
    InTurn,
    /// It is checked again then.
    At(Instant),
    /// Fetch and load this version.
    Replace(Arc<str>),
}

impl Refresh {
    /// Asks the store about one archive, and lets go of it where the store has deleted it.
    pub(super) async fn check(self: &Arc<Self>, target: &TargetModel) -> Next {
        let Some(version) = self.version_in_memory(target) else { return Next::InTurn };
        let asked = Instant::now();
        let current = self.targets.archives.compare(target, &version).await;
        let was_away = self.is_store_away.swap(current.is_err(), Ordering::Relaxed);
        let (outcome, next) = match current {
            Ok(Current::Same) => {
                self.found(target, asked);
                self.forget(std::slice::from_ref(target));
                (CheckOutcome::Unchanged, Next::InTurn)
            }
            Ok(Current::Other(newest)) => {
                self.found(target, asked);
                let is_left_alone = self.failures.lock().check(target, &newest, Instant::now()).is_some();
                (CheckOutcome::Changed, if is_left_alone { Next::InTurn } else { Next::Replace(newest) })
            }
            Ok(Current::Gone) => (CheckOutcome::Missing, self.missed(target, version, asked).await),
            Err(error) => {
                if !was_away {
                    tracing::warn!(%target, "the store cannot be asked what has changed; what is in memory serves on: {error:#}");
                }
                (CheckOutcome::Failed, Next::InTurn)
            }
        };
        outcome.count();
        next
    }

    pub(super) fn version_in_memory(&self, target: &TargetModel) -> Option<Arc<str>> {
        self.room.read(|residency| {
            let archive = residency.peek(&ArchiveKey::Target(target.clone()))?;
            Some(archive.of_store()?.1.etag().clone())
        })
    }

    pub(super) fn found(&self, target: &TargetModel, asked: Instant) {
        self.missing.lock().found(target, asked);
        self.is_store_empty.store(false, Ordering::Relaxed);
    }

    /// Sees to an archive that the store does not have any more.
    async fn missed(self: &Arc<Self>, target: &TargetModel, version: Arc<str>, asked: Instant) -> Next {
        if self.version_in_memory(target).as_ref() != Some(&version) {
            // It has left meanwhile, or was loaded anew: the answer is not about what is there now.
            return Next::InTurn;
        }
        let others = self.others(target);
        let mut verdict = self.missing.lock().missed(target, !others.is_empty(), asked);
        if let Verdict::Doubtful(_) = verdict {
            self.look_for(&others).await;
            verdict = self.missing.lock().missed(target, true, asked);
        }
        match verdict {
            Verdict::NotYet(due) => Next::At(due),
            Verdict::Doubtful(due) => {
                if !self.is_store_empty.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        %target,
                        "the store seems to have none of the archives in memory any more; they serve on for another \
                         --store-check-interval, and are gone then if it has not got them back"
                    );
                }
                Next::At(due)
            }
            Verdict::Deleted => {
                self.let_go(target, version).await;
                Next::InTurn
            }
        }
    }

    /// Some other archives in memory that are the store's, first those that are not known to be missing.
    fn others(&self, target: &TargetModel) -> Vec<TargetModel> {
        let others: Vec<TargetModel> = self.room.read(|residency| {
            let of_store = residency.iter().filter_map(|archive| Some(archive.of_store()?.0));
            of_store.filter(|other| *other != target).take(CANDIDATES).cloned().collect()
        });
        let missing = self.missing.lock();
        let (known, unknown): (Vec<_>, Vec<_>) = others.into_iter().partition(|other| missing.has(other));
        unknown.into_iter().chain(known).take(WITNESSES).collect()
    }

    /// Asks the store about some archives until it has one.
    async fn look_for(&self, archives: &[TargetModel]) {
        for target in archives {
            let asked = Instant::now();
            let Some(version) = self.version_in_memory(target) else { continue };
            if let Ok(Current::Same | Current::Other(_)) = self.targets.archives.compare(target, &version).await {
                return self.found(target, asked);
            }
        }
    }

    /// Takes an archive that the store has deleted out of the disk cache, and out of memory once its requests have ended.
    async fn let_go(self: &Arc<Self>, target: &TargetModel, version: Arc<str>) {
        let (this, name) = (self.clone(), target.clone());
        // From disk first, or a request in between would load it from there once more.
        let forgotten = self.room.background.run(move || this.targets.archives.forget(&name)).await;
        if forgotten.is_err() {
            tracing::error!(%target, "taking a deleted archive out of the disk cache panicked");
        }
        self.missing.lock().forget(target);
        if let Some(pin) = self.room.pin_unused(&ArchiveKey::Target(target.clone()))
            && pin.version == version
        {
            tracing::info!(%target, etag = &*version, "the store has deleted it; it serves no more");
            self.room.discard(&pin, UnloadReason::Deleted);
            Outcome::Deleted.count();
        }
    }
}

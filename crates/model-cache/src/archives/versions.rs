//! Versions of archives: whether the store still has what is in use, and which newer ones are passed over.

use std::sync::Arc;
use std::time::Instant;

use inference::{Error, ErrorKind, Result, TargetModel};
use repository::{CachedArchive, Listing, ObjectInfo};

use super::Archives;

/// What the store has, compared with what is in use.
pub(crate) enum Current {
    /// The same.
    Same,
    /// Another version.
    Other(Arc<str>),
    /// Nothing.
    Gone,
}

impl Archives {
    /// Asks the store whether `version` is still what it has.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub(crate) async fn compare(&self, target: &TargetModel, version: &str) -> Result<Current> {
        let asked = Instant::now();
        match self.store.head(target).await {
            Ok(ObjectInfo { etag, .. }) => {
                self.missing.lock().forget(target);
                if *etag != *version {
                    return Ok(Current::Other(etag));
                }
                self.confirm(target, &etag, asked);
                Ok(Current::Same)
            }
            // Not noted as missing: it serves until it counts as deleted, and may be loaded again until then.
            Err(error) if error.kind() == ErrorKind::NotFound => match self.store.is_missing(target).await? {
                true => Ok(Current::Gone),
                false => Err(Error::unavailable(format!("'{target}' is both there and not there; asked again later"))),
            },
            Err(error) => Err(error),
        }
    }

    /// A listing of the store, where that may be cheaper than to ask about each archive.
    pub(crate) fn list(&self) -> Option<Listing> {
        self.store.list()
    }

    /// When the store last said that it has this version, if that was the last that it said.
    pub(crate) fn last_confirmed(&self, target: &TargetModel, version: &str) -> Option<Instant> {
        let confirmed = self.confirmed.lock();
        confirmed.peek(target).filter(|(etag, _)| **etag == *version).map(|(_, asked)| *asked)
    }

    /// Notes that the store had this version when it was asked.
    pub(crate) fn confirm(&self, target: &TargetModel, version: &Arc<str>, asked: Instant) {
        self.confirmed.lock().put(target.clone(), (version.clone(), asked));
    }

    /// Takes an archive out of the disk cache that the store has deleted; pinned files go with their last pin. Blocks.
    pub(crate) fn forget(&self, target: &TargetModel) {
        self.confirmed.lock().pop(target);
        self.rejected.lock().pop(target);
        self.disk.remove(target);
    }

    /// Passes over a version that turned out to be no good, and goes on with the one before, which is still on disk.
    pub(crate) fn reject(&self, target: &TargetModel, version: &Arc<str>, before: &CachedArchive) {
        self.rejected.lock().put(target.clone(), version.clone());
        self.disk.reinstate(before);
    }

    /// The version of an archive that is passed over while an older one is on disk.
    pub(super) fn rejected(&self, target: &TargetModel) -> Option<Arc<str>> {
        self.rejected.lock().peek(target).cloned()
    }
}

//! What is remembered of an archive that has to leave for others.

use std::time::Instant;

use inference::Device;

use super::Room;
use crate::clock::now;
use crate::displaced::Archive;
use crate::loaded::LoadedArchive;
use crate::route::ArchiveKey;

impl Room {
    /// An archive has to leave for others.
    pub(super) fn evicted(&self, archive: &LoadedArchive) {
        self.churn.evicted(archive, now());
        if let Some((target, _)) = archive.of_store().filter(|_| archive.elsewhere.on_host && archive.is_on_gpu()) {
            let bytes = archive.usage.iter().map(|(_, bytes)| bytes).sum();
            self.displaced.lock().note(target, bytes, now());
        }
    }

    /// An archive is not wanted in memory any more, wherever it is.
    pub(super) fn not_wanted(&self, key: &ArchiveKey) {
        if let ArchiveKey::Target(target) = key {
            self.displaced.lock().forget(target);
        }
    }

    /// What had to leave a GPU and may be on the host, once it fits there.
    pub(crate) fn next_displaced(&self, now: Instant) -> Option<Archive> {
        let free = self.read(|residency| residency.most_free(|device| device == Device::Host));
        self.displaced.lock().next(free, now)
    }

    /// Its move is over.
    pub(crate) fn forget_displaced(&self, archive: &Archive) {
        self.displaced.lock().done(archive);
    }
}

//! What is remembered of an archive that has to leave for others.

use std::time::Instant;

use inference::TargetModel;

use super::Room;
use crate::clock::now;
use crate::loaded::LoadedArchive;

impl Room {
    /// An archive has to leave for others.
    pub(super) fn evicted(&self, archive: &LoadedArchive) {
        self.churn.evicted(archive, now());
        if let Some((target, _)) = archive.of_store().filter(|_| archive.elsewhere.on_host && archive.is_on_gpu()) {
            let bytes = archive.usage.iter().map(|(_, bytes)| bytes).sum();
            self.displaced.lock().note(target, bytes, now());
        }
    }

    /// What had to leave a GPU and may be on the host, once it fits somewhere.
    pub(crate) fn take_displaced(&self, now: Instant) -> Option<TargetModel> {
        let free = self.read(|residency| residency.most_free(|_| true));
        self.displaced.lock().take(free, now)
    }

    /// What had to leave is not to come back unasked.
    pub(crate) fn forget_displaced(&self, target: &TargetModel) {
        self.displaced.lock().forget(target);
    }
}

//! Fetching an archive: one task reads from the store, one background thread unpacks at the same time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use inference::{Error, Result, TargetModel};
use tokio::sync::mpsc;

use super::policy::ArchiveKey;
use super::reservation::Reservation;
use super::{CachedArchive, DiskCache, EvictionReason, FetchTiming, touch};
use crate::archive::{Source, unpack};
use crate::background::Panicked;
use crate::download::{Download, Urgency};
use crate::failure::{Failure, Outcome, Reason};
use crate::store::{ModelStore, ObjectInfo};

/// Chunks (of some tens to hundreds of KiB) that may wait between the parts that come in and the disk.
const CHUNKS_IN_FLIGHT: usize = 4;

impl DiskCache {
    /// Downloads, unpacks and checks the version `info` of an archive, makes room for it, and pins it. Where more are asked
    /// for at once than may be, the most urgent go first, as they are by then. Where that version
    /// is on disk already nothing is fetched. An older version stays for as long as it is pinned. Dropping the future
    /// stops the download and leaves nothing behind.
    ///
    /// One flight per archive is the caller's business; concurrent calls for one version waste work but do no harm.
    ///
    /// # Errors
    /// InvalidArgument for a bad archive, naming the entry and why; the same version is then refused with the same error,
    /// unfetched, until a back-off ends. NoRoom; Unavailable and NotFound from the store (Unavailable also when the
    /// archive was replaced meanwhile: ask the store's `head` again); DeadlineExceeded after the download timeout;
    /// Internal when the disk fails.
    pub async fn fetch(
        self: &Arc<Self>,
        store: &Arc<dyn ModelStore>,
        target: &TargetModel,
        info: &ObjectInfo,
        urgency: &Urgency,
    ) -> Result<(CachedArchive, FetchTiming)> {
        let key = ArchiveKey { target: target.clone(), etag: Arc::clone(&info.etag) };
        if let Some(archive) = self.pin_current(&key) {
            return Ok((archive, FetchTiming::default()));
        }
        if let Some(error) = self.state.lock().refusals.check(target, &info.etag, Instant::now()) {
            return Err(error);
        }
        let outcome = self.download_and_unpack(store, &key, info, urgency).await.map_err(|failure| failure.of(target));
        outcome.inspect(|_| self.state.lock().refusals.forget(target)).map_err(|Failure { reason, error }| {
            let label = reason.label();
            metrics::counter!("panoply_download_failures_total", "reason" => label).increment(1);
            tracing::warn!(target_model = %target, etag = %info.etag, reason = label, "fetch failed: {error:#}");
            if reason.lies_in_the_archive() {
                self.state.lock().refusals.record(target, &info.etag, error.clone(), Instant::now());
            }
            error
        })
    }

    /// Pins a version that is on disk already, and makes it the one that serves.
    fn pin_current(self: &Arc<Self>, key: &ArchiveKey) -> Option<CachedArchive> {
        let (archive, replaced) = {
            let mut state = self.state.lock();
            let replaced = state.ledger.confirm(key)?;
            (self.pin_in(&mut state.ledger, key)?, replaced)
        };
        touch(&archive);
        self.delete_replaced(replaced);
        Some(archive)
    }

    async fn download_and_unpack(
        self: &Arc<Self>,
        store: &Arc<dyn ModelStore>,
        key: &ArchiveKey,
        info: &ObjectInfo,
        urgency: &Urgency,
    ) -> Outcome<(CachedArchive, FetchTiming)> {
        let turn = self.downloads.turn(urgency).await;
        let started = Instant::now();
        let deadline = tokio::time::Instant::now() + self.config.download_timeout;
        let timeout = self.config.download_timeout;
        let download = Download {
            store: Arc::clone(store),
            target: key.target.clone(),
            info: info.clone(),
            urgency: urgency.clone(),
        };
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let source = Source::new(receiver, info.size, info.checksum.clone());
        let (cache, unpacked_key) = (Arc::clone(self), key.clone());
        let unpacking = self.config.background.run(move || {
            // Held here and not by the future, which may be dropped while the thread is still busy.
            let _turn = turn;
            cache.unpack_and_publish(&unpacked_key, source)
        });
        let run = tokio::time::timeout_at(deadline, self.downloads.run(download, &sender)).await;
        if run.is_err() {
            // The unpacking thread may be waiting for bytes: tell it that none will come. When the channel is full it is
            // behind, and finds the channel closed later on.
            let _ = sender.try_send(Err(too_slow(&key.target, timeout).error));
        }
        drop(sender);
        let downloaded = Instant::now();
        let published = unpacking.await;
        if run.is_err() {
            return Err(too_slow(&key.target, timeout));
        }
        let archive = published.unwrap_or_else(|panicked| Err(crashed(&panicked)))?;
        let timing = FetchTiming { download: downloaded - started, unpack: downloaded.elapsed() };
        count_success(info.size, &archive, timing);
        Ok((archive, timing))
    }

    /// Blocks until the source has ended and everything is in place.
    fn unpack_and_publish(self: &Arc<Self>, key: &ArchiveKey, mut source: Source) -> Outcome<CachedArchive> {
        let mut room = Reservation::new(self);
        let staging = self.folder.stage(key, &mut room)?;
        let unpacked = unpack(&mut source, &staging.tree(), &self.config.limits, &mut room)?;
        let (store, used_at) = (&self.store_location, self.time_of_use());
        let directory = self.folder.publish(staging, key, unpacked.bytes, store, used_at, &mut room)?;
        let (inserted, replaced, archive) = {
            let mut state = self.state.lock();
            // All within one lock: the bytes are always counted, as reserved or as used, and nobody evicts the archive
            // before it is pinned.
            room.hand_over(&mut state.ledger);
            let (inserted, replaced) = state.ledger.insert(key.clone(), unpacked.bytes, Arc::clone(&directory));
            (inserted, replaced, self.pin_in(&mut state.ledger, key))
        };
        if !inserted {
            // Another fetch of this very version was faster.
            self.folder.delete(&directory);
        }
        self.delete_reserved(&replaced, EvictionReason::Replaced);
        archive.ok_or_else(|| Failure::new(Reason::Disk, Error::internal("an archive vanished as it was published")))
    }
}

fn count_success(size: u64, archive: &CachedArchive, timing: FetchTiming) {
    metrics::counter!("panoply_downloads_total").increment(1);
    metrics::histogram!("panoply_download_duration_seconds").record(timing.download);
    metrics::histogram!("panoply_unpack_duration_seconds").record(timing.unpack);
    metrics::counter!("panoply_unpacked_bytes_total").increment(archive.bytes());
    tracing::info!(
        target_model = %archive.target(), etag = %archive.etag(), size, unpacked = archive.bytes(),
        download_seconds = timing.download.as_secs_f64(), unpack_seconds = timing.unpack.as_secs_f64(),
        "archive fetched"
    );
}

fn too_slow(target: &TargetModel, timeout: Duration) -> Failure {
    let message =
        format!("the download of '{target}' took longer than {} s; raise --download-timeout", timeout.as_secs_f32());
    Failure::new(Reason::Timeout, Error::deadline_exceeded(message))
}

fn crashed(panicked: &Panicked) -> Failure {
    Failure::new(Reason::Disk, Error::internal(format!("unpacking stopped: {panicked}")))
}

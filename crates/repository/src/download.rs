//! How archives come from the store: in parts, who goes first, and how fast all of them together.

mod bandwidth;
mod bucket;
mod parts;
mod priority;
mod queue;
mod turns;

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

use bandwidth::Bandwidth;
pub(crate) use parts::Download;
pub use priority::{Priority, Urgency};
pub(crate) use turns::Turn;
use turns::Turns;

/// What bounds downloads.
#[derive(Clone, Debug)]
pub struct DownloadConfig {
    /// Archives that may be downloaded and unpacked at the same time; further ones wait for as long as their callers do, the
    /// most urgent first. Each takes a thread of the runtime's blocking pool.
    pub archives: NonZeroUsize,
    /// Archives of more bytes are read in parts of so many.
    pub part_size: NonZeroU64,
    /// Parts of all archives that may be under way at the same time. So many times `part_size` is what downloads hold in
    /// memory at most, next to some hundred KiB for each archive.
    pub parts: NonZeroUsize,
    /// Bytes per second of all downloads together; `None` for no bound.
    pub bandwidth: Option<NonZeroU64>,
}

impl Default for DownloadConfig {
    fn default() -> Self {
        DownloadConfig {
            archives: NonZeroUsize::new(8).expect("invariant: not zero"),
            part_size: NonZeroU64::new(8 << 20).expect("invariant: not zero"),
            parts: NonZeroUsize::new(16).expect("invariant: not zero"),
            bandwidth: None,
        }
    }
}

/// All downloads, and what they share.
#[derive(Debug)]
pub(crate) struct Downloads {
    config: DownloadConfig,
    archives: Arc<Turns>,
    parts: Arc<Turns>,
    bandwidth: Option<Bandwidth>,
}

impl Downloads {
    pub(crate) fn new(config: DownloadConfig) -> Arc<Self> {
        let archives =
            Turns::new(config.archives.get(), "panoply_downloads_in_flight", "panoply_download_waiting_archives");
        let parts =
            Turns::new(config.parts.get(), "panoply_download_parts_in_flight", "panoply_download_waiting_requests");
        let bandwidth = config.bandwidth.map(|rate| Bandwidth::new(rate.get()));
        Arc::new(Downloads { config, archives, parts, bandwidth })
    }

    /// Waits until one more archive may be downloaded and unpacked, the most urgent first.
    pub(crate) async fn turn(&self, urgency: &Urgency) -> Turn {
        self.archives.take(urgency).await
    }
}

#[cfg(test)]
mod tests;

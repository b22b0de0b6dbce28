//! An archive in parts: several are read at once, and passed on in order.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use inference::{Error, Result, TargetModel};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::turns::Turn;
use super::{Downloads, Urgency};
use crate::store::{ModelStore, ObjectInfo};

/// What is downloaded.
pub(crate) struct Download {
    pub(crate) store: Arc<dyn ModelStore>,
    pub(crate) target: TargetModel,
    pub(crate) info: ObjectInfo,
    pub(crate) urgency: Urgency,
}

/// A part under way: what has come of it and waits to be passed on. Never more than the part is long, so that the number of
/// turns bounds what all downloads hold together.
struct Part {
    chunks: mpsc::UnboundedReceiver<Result<Bytes>>,
    _turn: Turn,
}

impl Downloads {
    /// Reads an archive and passes its bytes on in order, or an error at the end, until nobody listens any more.
    ///
    /// A part has a turn from before it is asked for until it has been passed on. A download takes its turns in the order of
    /// its parts, so that the part that is passed on next always has one, and no download waits for another's.
    pub(crate) async fn run(self: &Arc<Self>, download: Download, sender: &mpsc::Sender<Result<Bytes>>) {
        let download = Arc::new(download);
        let (parts, mut in_order) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let start = async {
            for range in ranges(download.info.size, self.config.part_size) {
                let turn = self.parts.take(&download.urgency).await;
                let (chunks, received) = mpsc::unbounded_channel();
                // What has been read need not be remembered: an archive may have any number of parts.
                while tasks.try_join_next().is_some() {}
                tasks.spawn(self.clone().read(download.clone(), range, chunks));
                let _ = parts.send(Part { chunks: received, _turn: turn });
            }
            drop(parts);
            std::future::pending::<()>().await;
        };
        let pass_on = async {
            while let Some(mut part) = in_order.recv().await {
                while let Some(chunk) = part.chunks.recv().await {
                    let has_failed = chunk.is_err();
                    if sender.send(chunk).await.is_err() || has_failed {
                        return;
                    }
                }
            }
        };
        tokio::select! {
            () = start => {}
            () = pass_on => {}
        }
    }

    /// Reads one part.
    async fn read(
        self: Arc<Self>,
        download: Arc<Download>,
        range: Range<u64>,
        chunks: mpsc::UnboundedSender<Result<Bytes>>,
    ) {
        if let Err(error) = self.try_read(&download, range, &chunks).await {
            // Whoever does not listen has gone away, or has had an error from an earlier part.
            let _ = chunks.send(Err(error));
        }
    }

    async fn try_read(
        &self,
        download: &Download,
        range: Range<u64>,
        chunks: &mpsc::UnboundedSender<Result<Bytes>>,
    ) -> Result<()> {
        let Download { store, target, info, urgency } = download;
        let mut missing = range.end - range.start;
        let mut bytes = store.get(target, info, range).await?;
        while let Some(chunk) = bytes.next().await.transpose()? {
            metrics::counter!("panoply_download_bytes_total").increment(chunk.len() as u64);
            if let Some(bandwidth) = &self.bandwidth {
                bandwidth.pay(chunk.len(), urgency).await;
            }
            missing = missing.saturating_sub(chunk.len() as u64);
            let _ = chunks.send(Ok(chunk));
        }
        if missing > 0 {
            let message = format!("the download of '{target}' ended {missing} bytes early; try again");
            return Err(Error::unavailable(message).with_model(target.as_str()));
        }
        Ok(())
    }
}

/// The parts of so many bytes, in order; the whole where it is no larger than one, even if it is empty.
fn ranges(size: u64, part_size: NonZeroU64) -> impl Iterator<Item = Range<u64>> {
    let part_size = part_size.get();
    let count = size.div_ceil(part_size).max(1);
    (0..count).map(move |number| number * part_size..size.min((number + 1).saturating_mul(part_size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_an_archive() {
        let parts = |size, part: u64| -> Vec<_> {
            ranges(size, part.try_into().expect("not zero")).map(|range| (range.start, range.end)).collect()
        };
        assert_eq!(parts(10, 4), [(0, 4), (4, 8), (8, 10)]);
        assert_eq!(parts(8, 4), [(0, 4), (4, 8)]);
        assert_eq!(parts(3, u64::MAX), [(0, 3)]);
        assert_eq!(parts(0, 4), [(0, 0)]);
    }
}

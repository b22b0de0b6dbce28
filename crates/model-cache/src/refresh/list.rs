//! One listing of the store, which settles at once what has not changed. Whatever else it shows, or does not, is asked about.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use inference::TargetModel;
use repository::Listing;

use super::Refresh;
use super::listings::Ending;
use super::outcome::CheckOutcome;

/// What a listing came to.
pub(super) struct Listed {
    pub(super) ending: Ending,
    /// When it began.
    pub(super) asked: Instant,
    /// Archives in memory that are what the store has.
    pub(super) unchanged: Vec<TargetModel>,
}

impl Refresh {
    /// Reads up to so many pages of a listing.
    pub(super) async fn read(self: Arc<Self>, mut listing: Listing, pages: usize) -> Listed {
        let (asked, mut unchanged, mut ending) = (Instant::now(), Vec::new(), Ending::Cut(pages));
        let in_memory: HashMap<TargetModel, Arc<str>> = self.versions().into_iter().collect();
        for _ in 0..pages {
            let page = match listing.next().await {
                Some(Ok(page)) => page,
                Some(Err(error)) => {
                    tracing::warn!(
                        "the store is asked about each archive in memory, as it cannot be listed: {error:#}"
                    );
                    ending = Ending::Failed;
                    break;
                }
                None => break,
            };
            let same = page.archives.into_iter().filter(|listed| in_memory.get(&listed.target) == Some(&listed.etag));
            unchanged.extend(same.map(|listed| listed.target));
            if page.is_last {
                ending = Ending::Complete;
                break;
            }
        }
        for target in &unchanged {
            self.targets.archives.confirm(target, &in_memory[target], asked);
            self.found(target, asked);
            CheckOutcome::Listed.count();
        }
        self.forget(&unchanged);
        if unchanged.is_empty() && !in_memory.is_empty() {
            // Not all stores list the ETags that they give elsewhere.
            ending = Ending::Failed;
        }
        Listed { ending, asked, unchanged }
    }
}

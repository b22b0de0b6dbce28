//! Lets models grow with their use, in memory that nobody needs, and shrink again.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use inference::{Growth, GrowthAdvice};

use crate::loaded::{LoadedArchive, Pin};
use crate::room::Room;
use crate::route::ArchiveKey;

/// How often models are asked.
const LOOK: Duration = Duration::from_secs(1);

/// Asks all models from time to time, and does what they advise, one at a time; ends with the room.
pub(crate) async fn tend_forever(room: Weak<Room>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(room) = room.upgrade() else { return };
        for key in growing(&room, Instant::now()) {
            if let Some(pin) = room.pin_unused(&key) {
                tend(&room, &pin).await;
            }
        }
    }
}

/// The archives with a model that is not right as it is.
fn growing(room: &Room, now: Instant) -> Vec<ArchiveKey> {
    let moves = |growth: &Arc<dyn Growth>| growth.advice(now) != GrowthAdvice::Stay;
    let moves = |archive: &&Arc<LoadedArchive>| archive.growths().any(moves);
    room.read(|residency| residency.iter().filter(moves).map(|archive| archive.key.clone()).collect())
}

async fn tend(room: &Arc<Room>, archive: &Pin) {
    for growth in archive.growths() {
        let growth = growth.clone();
        let working = match growth.advice(Instant::now()) {
            GrowthAdvice::Stay => continue,
            // Most of the time it waits for requests to end, which none of them feels.
            GrowthAdvice::Shrink => room.background.run_uncounted(move || growth.shrink()),
            GrowthAdvice::Grow(usage) => {
                let Some(grant) = room.reserve_if_it_fits(usage) else { continue };
                room.background.run(move || match growth.grow(Box::new(grant)) {
                    Ok(_) => {}
                    Err(error) => tracing::warn!("a model could not grow: {error:#}"),
                })
            }
        };
        if working.await.is_err() {
            tracing::error!("a model panicked while it grew or shrank");
        }
    }
}

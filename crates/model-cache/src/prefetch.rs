//! Target models that the settings want in memory from the start.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use inference::{ErrorKind, TargetModel};
use tokio::sync::Semaphore;

use crate::cache::ModelCache;
use crate::flight::Flights;
use crate::kept::KeptBy;
use crate::overrides::Overrides;
use crate::target_control::ByName;
use crate::target_load::{TargetLoads, is_lasting};

/// How many are on their way at once.
const CONCURRENCY: usize = 2;
/// How long to wait before trying again what the moment was to blame for: this at first, twice as long each time.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

impl ModelCache {
    /// Loads these target models in their order, and keeps them in memory until they are unloaded by name. Ends when each is
    /// loaded, or cannot be; what the moment is to blame for is tried again until then. What has no room is not: each try would
    /// keep others waiting for theirs. It stays all the same, once a request has loaded it.
    pub fn keep_target_models(&self, targets: Vec<TargetModel>) -> impl Future<Output = ()> + Send + use<> {
        let (loads, flights) = (self.targets.clone(), self.flights.clone());
        async move {
            let Some(loads) = loads else { return };
            for target in &targets {
                loads.kept.keep(target, KeptBy::Settings);
            }
            let turns = Semaphore::new(CONCURRENCY);
            join_all(targets.iter().map(|target| keep(&loads, &flights, target, &turns))).await;
        }
    }
}

async fn keep(loads: &Arc<TargetLoads>, flights: &Arc<Flights>, target: &TargetModel, turns: &Semaphore) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let turn = turns.acquire().await.expect("invariant: never closed");
        // Unloaded by name meanwhile, it is not wanted any more.
        if !loads.kept.has(target) {
            return;
        }
        let loaded = loads.load_by_name(flights, target, ByName { overrides: Overrides::None, is_kept: true }).await;
        // Others go on while this one waits for better times.
        drop(turn);
        match loaded {
            Ok(()) => return,
            Err(error) if is_lasting(error.kind()) || error.kind() == ErrorKind::NoRoom => {
                tracing::error!(%target, "a model to be loaded at start cannot be: {error:#}");
                return;
            }
            Err(error) => {
                tracing::warn!(%target, ?backoff, "a model to be loaded at start will be tried again: {error:#}");
                tokio::time::sleep(backoff).await;
                backoff = LONGEST_BACKOFF.min(backoff * 2);
            }
        }
    }
}

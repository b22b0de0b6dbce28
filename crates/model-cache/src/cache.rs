//! The model cache: the request path from a key to an answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures::StreamExt;
use inference::{
    BoxFuture, BoxStream, CacheOutcome, CacheTier, Device, Error, InferRequest, InferResponse, InferenceService,
    MemoryUsage, ModelKey, Result, Span, TargetModel, Trace,
};

use repository::Priority;
use scheduler::ModelLabels;
use tokio::task::JoinSet;

use crate::archive_load::ArchiveLoads;
use crate::archives::Archives;
use crate::backends::Backends;
use crate::config::ModelCacheConfig;
use crate::flight::Flights;
use crate::forecast::Forecast;
use crate::growth;
use crate::interference::{Interference, Watched};
use crate::loaded::Pin;
use crate::loader::Loader;
use crate::metrics::CacheMetrics;
use crate::refresh::Refresh;
use crate::registered::Registrations;
use crate::relocation::Relocation;
use crate::repositories::Repositories;
use crate::restart::Restart;
use crate::room::{Room, UnloadReason};
use crate::route::{ArchiveKey, KnownNames, Route, route};
use crate::target_load::TargetLoads;
use crate::unasked::is_for_want_of_asking;

/// Serves models: finds them, loads them when they are asked for, and keeps in memory what fits.
pub struct ModelCache {
    pub(crate) room: Arc<Room>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) targets: Option<Arc<TargetLoads>>,
    pub(crate) registrations: Registrations,
    pub(crate) labels: Arc<ModelLabels>,
    pub(crate) repositories: Arc<Repositories>,
    restart: Option<Arc<Restart>>,
    pub(crate) refresh: Option<Arc<Refresh>>,
    is_accepting: AtomicBool,
    metrics: CacheMetrics,
    interference: Interference,
}

impl ModelCache {
    /// A cache over these backends; `archives` is where target models come from, if anywhere.
    ///
    /// Not ready until [`ModelCache::accept`].
    pub fn new(config: &ModelCacheConfig, backends: Backends, archives: Option<Archives>) -> Arc<Self> {
        let metrics = CacheMetrics;
        let room = Room::new(config, metrics);
        let labels = Arc::new(ModelLabels::new(config.metrics_model_limit, config.metric_options));
        let loader = Arc::new(Loader::new(backends, labels.clone(), config));
        let loads = ArchiveLoads::new(room.clone(), loader, config);
        let targets = archives
            .map(|archives| TargetLoads::new(archives, loads.clone(), room.clone(), config.scratch.clone().into()));
        let forecast = Forecast::new(config.download_concurrency, config.load_concurrency);
        let longest = config.download_timeout + config.load_timeout + config.room_timeout;
        let flights = Flights::new(config.load_queue_size, longest, forecast, metrics);
        let restart = targets.as_ref().map(|targets| {
            Restart::new(targets.clone(), flights.clone(), room.clone(), config.load_concurrency, metrics)
        });
        let is_refreshed = !config.store_check_interval.is_zero();
        let refresh = targets
            .as_ref()
            .filter(|_| is_refreshed)
            .map(|targets| Refresh::new(targets.clone(), flights.clone(), config));
        Arc::new(ModelCache {
            flights,
            restart,
            refresh,
            repositories: Repositories::new(config, loads.clone(), room.clone()),
            registrations: Registrations::new(loads, room.clone()),
            room,
            targets,
            labels,
            is_accepting: AtomicBool::new(false),
            metrics,
            interference: Interference::new(config.background.clone()),
        })
    }

    /// Loads those models of the unpacked repositories that are wanted from the start.
    ///
    /// # Errors
    /// Everything that is wrong with any of them; the others serve all the same.
    pub async fn load_repositories(&self) -> Result<()> {
        self.repositories.start().await
    }

    /// Looks for changes of the unpacked repositories from time to time, where that is wanted; ends at once where it is not.
    pub fn poll_repositories(&self) -> impl Future<Output = ()> + Send + use<> {
        self.repositories.clone().poll_forever()
    }

    /// Lets models grow with their use, and shrink again, for as long as there is this cache.
    pub fn tend_growth(&self) -> impl Future<Output = ()> + Send + use<> {
        growth::tend_forever(Arc::downgrade(&self.room))
    }

    /// Moves target models between GPUs and the host as room comes and goes; ends at once where there is no GPU or no store.
    pub fn move_between_devices(&self) -> impl Future<Output = ()> + Send + use<> {
        let has_gpu = self.room.read(|residency| residency.budget().iter().any(|(device, _)| device != Device::Host));
        let (flights, room, metrics) = (self.flights.clone(), self.room.clone(), self.metrics);
        let targets = self.targets.clone().filter(|_| has_gpu);
        async move {
            if let Some(targets) = targets {
                Relocation::new(targets, flights, room, metrics).run().await;
            }
        }
    }

    /// Changes how much models may take while serving. What is loaded beyond that is unloaded as soon as nobody uses it.
    pub fn set_budget(&self, budget: MemoryUsage) {
        self.room.set_budget(budget);
    }

    /// Keeps the metrics up to date that say whether memory holds what is asked for; never ends.
    pub fn watch_memory(&self) -> impl Future<Output = ()> + Send + use<> {
        self.room.clone().watch_churn()
    }

    /// Loads the target models again that were in memory when the server stopped: those that are still on disk, as far as
    /// they fit, after the loads that requests wait for, the most valuable first. From then on notes what is in memory, until
    /// [`ModelCache::unload_all`]; loads no more of them after [`ModelCache::drain`]. Ends at once where there is no store.
    pub fn restore_resident(&self) -> impl Future<Output = ()> + Send + use<> {
        let restart = self.restart.clone();
        async move {
            if let Some(restart) = restart {
                restart.run().await;
            }
        }
    }

    /// Keeps target models in memory in step with the store from now on; ends at once where there is no store, or its answers are
    /// not to be trusted for any time.
    pub fn refresh_targets(&self) -> impl Future<Output = ()> + Send + use<> {
        let refresh = self.refresh.clone();
        async move {
            if let Some(refresh) = refresh {
                refresh.run().await;
            }
        }
    }

    /// The histograms of single models, in Prometheus' text format; the recorder does not have them.
    pub fn render_histograms(&self) -> String {
        self.labels.render_histograms()
    }

    /// Start-up is over: the server is ready.
    pub fn accept(&self) {
        self.is_accepting.store(true, Ordering::Release);
    }

    /// The server is about to stop: it is not ready any more, but answers what comes.
    pub fn drain(&self) {
        self.is_accepting.store(false, Ordering::Release);
        self.restart.iter().for_each(|restart| restart.stop_restoring());
    }

    /// Whether the server is between [`ModelCache::accept`] and [`ModelCache::drain`], and every model of the repositories
    /// serves that has to.
    pub fn is_accepting(&self) -> bool {
        self.is_accepting.load(Ordering::Acquire) && self.repositories.is_ready()
    }

    /// Unloads everything; requests in flight keep their models until they end.
    pub async fn unload_all(&self) {
        if let Some(restart) = &self.restart {
            restart.finish().await;
        }
        let keys: Vec<ArchiveKey> =
            self.room.read(|residency| residency.iter().map(|archive| archive.key.clone()).collect());
        // All at once: an ensemble holds on to the models that it is made of until it is unloaded itself.
        let mut unloads = JoinSet::new();
        for key in keys {
            let room = self.room.clone();
            unloads.spawn(async move { room.remove(&key, UnloadReason::Shutdown).await });
        }
        unloads.join_all().await;
    }

    /// Where a key leads on this server.
    pub(crate) fn route(&self, key: &ModelKey) -> Result<Route> {
        self.registrations.with_names(|names| {
            self.repositories.with_records(|records| {
                route(
                    key,
                    KnownNames {
                        has_store: self.targets.is_some(),
                        is_registered: &|name| names.is_registered(name),
                        is_in_repository: &|name| records.is_known(name),
                        only_model: names.only_model(records.count(), records.only()),
                    },
                )
            })
        })
    }

    /// Sees to a model whose instances a crash has taken: a target model leaves memory, and the next request loads it anew;
    /// a repository's is loaded anew at once, and with it what is composed of it. `true` where that has happened since:
    /// then it is for whoever still holds on to this pin.
    fn replace_broken(&self, pin: &Pin) -> bool {
        let replaced = pin.members.iter().filter(|member| self.replace_broken(member)).count();
        let mut own = pin.models.values().flat_map(BTreeMap::values);
        if replaced == 0 && own.all(|model| model.service.is_usable()) {
            return false;
        }
        match &pin.key {
            _ if !self.room.is_resident(pin) => return true,
            ArchiveKey::Target(_) => {
                tracing::error!(archive = %pin.key, "a model crashed and has no instance left; it will be loaded anew");
                self.room.discard(pin, UnloadReason::Crash);
            }
            ArchiveKey::Model(name) => self.repositories.revive(name, pin),
            ArchiveKey::Registered(_) => {}
        }
        false
    }

    /// Pins the archive that a route leads to, loading it if need be.
    pub(crate) async fn acquire(
        &self,
        route: &Route,
        deadline: Option<Instant>,
        trace: Option<&Trace>,
    ) -> Result<(Pin, Option<CacheOutcome>)> {
        match &route.archive {
            ArchiveKey::Target(target) => {
                let (pin, outcome) = self.acquire_target(target, deadline, trace).await?;
                Ok((pin, Some(outcome)))
            }
            ArchiveKey::Model(name) => {
                Ok((self.room.pin(&route.archive).ok_or_else(|| Repositories::not_ready(name))?, None))
            }
            key @ ArchiveKey::Registered(_) => {
                let gone = || Error::unavailable(format!("{key} is being loaded or unloaded; try again"));
                Ok((self.room.pin(key).ok_or_else(gone)?, None))
            }
        }
    }

    async fn acquire_target(
        &self,
        target: &TargetModel,
        deadline: Option<Instant>,
        trace: Option<&Trace>,
    ) -> Result<(Pin, CacheOutcome)> {
        let key = ArchiveKey::Target(target.clone());
        if let Some(pin) = self.room.pin(&key) {
            self.metrics.found(CacheTier::Memory);
            return Ok(pin.into_landing());
        }
        let targets = self.targets.as_ref().ok_or_else(|| Error::not_found("this server has no model store"))?;
        let mut span = trace.map(|trace| trace.begin("archive"));
        // The spans of a load are in the trace of the request that it began for.
        let inside = span.as_ref().map(Span::inside);
        let load = |journey| targets.clone().load(target.clone(), journey, inside.clone());
        let landed = loop {
            let passenger = self.flights.board(target, Priority::Interactive, load)?;
            match passenger.land(deadline).await {
                // Others are evicted for a load that is asked for.
                Err(error) if is_for_want_of_asking(&error) => {}
                landed => break landed,
            }
        };
        if let (Some(span), Err(error)) = (&mut span, &landed) {
            span.fail(error);
        }
        let (pin, outcome) = landed?;
        self.metrics.found(outcome.tier);
        Ok((pin, outcome))
    }
}

impl InferenceService for ModelCache {
    fn infer(&self, request: InferRequest) -> BoxFuture<'_, Result<InferResponse>> {
        Box::pin(async move {
            let route = self.route(&request.model)?;
            // What happens while it is looked up counts, too.
            let watched = self.interference.watch();
            let (pin, cache) = self.acquire(&route, request.loaded_by(), request.trace.as_ref()).await?;
            let served = pin.find(route.model.as_deref(), request.model.version).map_err(|error| pin.blame(error))?;
            let is_resident = cache.as_ref().is_none_or(|cache| cache.tier == CacheTier::Memory);
            let watched = is_resident.then_some(watched);
            let answered = served.service.infer(request).await;
            let mut response = answered.map_err(|error| {
                self.replace_broken(&pin);
                pin.blame(error)
            })?;
            watched.into_iter().for_each(Watched::answered);
            response.cache = cache;
            // Outputs may lie in the model's memory: it stays until they are written.
            response.guard = Some(Arc::new(pin));
            Ok(response)
        })
    }

    fn infer_stream(&self, request: InferRequest) -> BoxStream<'_, Result<InferResponse>> {
        Box::pin(async_stream::try_stream! {
            let route = self.route(&request.model)?;
            let (pin, mut cache) = self.acquire(&route, request.loaded_by(), request.trace.as_ref()).await?;
            let served = pin.find(route.model.as_deref(), request.model.version).map_err(|error| pin.blame(error))?;
            // One pin for the stream; each of its answers keeps it for as long as that is written.
            let guard = Arc::new(pin.clone());
            let mut responses = served.service.infer_stream(request);
            while let Some(response) = responses.next().await {
                let mut response = response.map_err(|error| {
                    self.replace_broken(&pin);
                    pin.blame(error)
                })?;
                // The first answer tells where the model was found.
                response.cache = cache.take();
                response.guard = Some(guard.clone());
                yield response;
            }
        })
    }
}

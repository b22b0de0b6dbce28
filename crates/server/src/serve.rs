//! `panoply serve`: binds, serves, drains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use frontend::{Admission, LogControl, Services};
use metrics_exporter_prometheus::PrometheusHandle;
use model_cache::ModelCache;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::settings::Settings;
use crate::trace_export::{self, SpanQueue};
use crate::{telemetry, wiring};

/// How often histograms are drained into their buckets; between two times they grow.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// How long unloading may take at the end; the process frees what is left.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or Ctrl-C, then drains.
///
/// # Errors
/// When a port cannot be bound, or start-up fails.
pub(crate) async fn run(settings: Settings, log: Arc<dyn LogControl>) -> Result<()> {
    settings.transport.unheeded.iter().for_each(|text| tracing::warn!("{text}"));
    let metrics = telemetry::start_metrics(&settings.metrics)?;
    tokio::spawn(keep_up(metrics.clone()));
    let mut stop = StopSignal::listen()?;
    let ports = Ports::bind(&settings)?;
    let (spans, exporting) = trace_export::start(&settings.trace)?;
    let cache = wiring::model_cache(&settings).await?;
    let drain = CancellationToken::new();
    let mut servers = ports.serve(&settings, &cache, log, metrics, spans, &drain);
    tokio::select! {
        loaded = cache.load_repositories() => match loaded {
            Err(error) if settings.exit_on_error => return Err(error).context("the model repository cannot be loaded"),
            Err(error) => tracing::error!("some models cannot be loaded: {error:#}"),
            Ok(()) => {}
        },
        () = stop.received() => return Ok(()),
    }
    let mut keeping = spawn(cache.keep_target_models(settings.at_start.kept.clone()));
    let _restoring = settings.at_start.is_restored.then(|| spawn(cache.restore_resident()));
    let polling = spawn(cache.poll_repositories());
    let tending = spawn(cache.tend_growth());
    let moving = spawn(cache.move_between_devices());
    let _watching = spawn(cache.watch_memory());
    let refreshing = spawn(cache.refresh_targets());
    if settings.at_start.are_awaited {
        tokio::select! {
            _ = &mut keeping => {}
            () = stop.received() => return Ok(()),
        }
    }
    cache.accept();
    tracing::info!("ready");
    stop.received().await;
    tracing::info!(delay = ?settings.drain_delay, timeout = ?settings.drain_timeout, "draining");
    cache.drain();
    polling.abort();
    tending.abort();
    moving.abort();
    keeping.abort();
    refreshing.abort();
    drain.cancel();
    while let Some(report) = servers.join_next().await {
        let cut = report.map_or(0, |report| report.cut);
        if cut > 0 {
            tracing::warn!(cut, "connections still had a request when --drain-timeout was over");
        }
    }
    if tokio::time::timeout(UNLOAD_TIMEOUT, cache.unload_all()).await.is_err() {
        tracing::warn!("a model is still in use; it ends with the process");
    }
    exporting.finish().await;
    tracing::info!("stopped");
    Ok(())
}

/// What goes on beside the requests, at the longest for as long as the server runs.
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

async fn keep_up(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(METRICS_UPKEEP).await;
        metrics.run_upkeep();
    }
}

/// SIGTERM and Ctrl-C, caught from the moment this exists.
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn listen() -> Result<Self> {
        Ok(StopSignal { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Resolves when the process is asked to stop.
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How many connections may wait to be accepted (the kernel's `net.core.somaxconn` may allow fewer). Past it a client's
/// first packet is dropped, and its next comes a second later.
const BACKLOG: u32 = 4096;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of the process before may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The listening sockets.
struct Ports {
    http: TcpListener,
    grpc: TcpListener,
    /// None where metrics are not served.
    metrics: Option<TcpListener>,
    sagemaker: TcpListener,
}

impl Ports {
    fn bind(settings: &Settings) -> Result<Self> {
        let bind = |address, option| listen(address).with_context(|| format!("cannot listen on {address} ({option})"));
        let addresses = &settings.addresses;
        let ports = Ports {
            http: bind(addresses.http, "--http-port")?,
            grpc: bind(addresses.grpc, "--grpc-port")?,
            metrics: match settings.metrics.are_served {
                true => Some(bind(addresses.metrics, "--metrics-port")?),
                false => None,
            },
            sagemaker: bind(addresses.sagemaker, "--sagemaker-port")?,
        };
        let [http, grpc, sagemaker] = [&ports.http, &ports.grpc, &ports.sagemaker];
        let [http, grpc, sagemaker] = [http.local_addr()?, grpc.local_addr()?, sagemaker.local_addr()?];
        let metrics = ports.metrics.as_ref().map(TcpListener::local_addr).transpose()?.map(tracing::field::display);
        tracing::info!(%http, %grpc, metrics, %sagemaker, "listening");
        Ok(ports)
    }

    fn serve(
        self,
        settings: &Settings,
        cache: &Arc<ModelCache>,
        log: Arc<dyn LogControl>,
        metrics: PrometheusHandle,
        spans: Arc<SpanQueue>,
        drain: &CancellationToken,
    ) -> JoinSet<frontend::DrainReport> {
        let admission = Admission::new(settings.max_requests_in_flight, settings.max_buffered_bytes);
        let shared_memory = wiring::shared_memory(settings);
        let tracing = wiring::tracing(settings, spans);
        let services =
            Services { inference: cache.clone(), control: cache.clone(), log, admission, shared_memory, tracing };
        let config = wiring::frontend_config(settings);
        let (http, grpc) = (wiring::http_config(settings), wiring::grpc_config(settings));
        let others = wiring::serve_config(settings);
        let closing = closing(settings, drain);
        let ports = [
            (self.http, frontend::http_router(services.clone(), config.clone()), http),
            (self.grpc, frontend::grpc_router(services.clone(), config.clone(), closing), grpc),
            (self.sagemaker, frontend::sagemaker_router(services, config), others.clone()),
        ];
        let cache = cache.clone();
        let scrape = Arc::new(move || metrics.render() + &cache.render_histograms());
        let render = move |port| (port, frontend::metrics_router(scrape), others);
        let mut servers = JoinSet::new();
        for (listener, router, connections) in ports.into_iter().chain(self.metrics.map(render)) {
            servers.spawn(frontend::serve(listener, router, drain.clone(), connections));
        }
        servers
    }
}

/// Cancelled when the time is over in which new requests are still taken after `drain`.
fn closing(settings: &Settings, drain: &CancellationToken) -> CancellationToken {
    let closing = CancellationToken::new();
    let (drain, delay, cancel) = (drain.clone(), settings.drain_delay, closing.clone());
    tokio::spawn(async move {
        drain.cancelled().await;
        tokio::time::sleep(delay).await;
        cancel.cancel();
    });
    closing
}

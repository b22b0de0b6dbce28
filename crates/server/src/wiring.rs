//! Puts the parts together: store, disk cache, backends, model cache.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use backend_onnxruntime::{OnnxRuntimeBackend, OnnxRuntimeConfig};
use backend_text::{PoolingBackend, TokenizerBackend};
use frontend::{FrontendConfig, ServeConfig, SharedMemory, Tracing};
use inference::identity::IdentityBackend;
use inference::repeat::RepeatBackend;
use inference::square::SquareBackend;
use inference::{Backend, Device, DeviceMemory, MemoryUsage};
use model_cache::{
    AfterUnload, Archives, Backends, CudaInventory, CudaMemory, DeviceInventory, Gpu, ModelCache, ModelCacheConfig,
};
use repository::{Background, DiskCache, DiskCacheConfig, FolderStore, ModelStore, S3Store, UnpackLimits};
use scheduler::{SchedulerConfig, StreamConfig};

use crate::memory::{FreedMemory, default_model_memory};
use crate::settings::{DownloadSettings, Settings, StoreSettings};
use crate::trace_export::SpanQueue;
use crate::transport::TransportSettings;

/// What the system's loader finds when no library was named.
const ORT_LIBRARY: &str = "libonnxruntime.so";

/// Loads and unloads that may hang, or unloads beyond as many as loads, without keeping others from a thread.
const HANGING: usize = 64;

/// The model cache with everything behind it; not ready yet.
///
/// # Errors
/// When the disk cache cannot be opened, the store cannot be configured, or a backend that was asked for does not start.
pub(crate) async fn model_cache(settings: &Settings) -> Result<Arc<ModelCache>> {
    let gpus = CudaInventory.gpus();
    let background = background(settings)?;
    let config = cache_config(settings, &gpus, background.clone())?;
    let backends = backends(settings, &config.gpus)?;
    let archives = match &settings.store {
        None => None,
        Some(store) => {
            let store = model_store(store, &settings.downloads).await?;
            let (disk, location) = (disk_config(settings, background), store.location().to_owned());
            let disk = tokio::task::spawn_blocking(move || DiskCache::open(disk, &location)).await??;
            tracing::info!(store = store.location(), disk_cache = %settings.disk_cache.display(), "serving archives");
            Some(Archives::new(store, disk, &config))
        }
    };
    Ok(ModelCache::new(&config, backends, archives))
}

async fn model_store(store: &StoreSettings, downloads: &DownloadSettings) -> Result<Arc<dyn ModelStore>> {
    Ok(match store {
        StoreSettings::S3(config) => Arc::new(S3Store::connect(downloads.s3(config.clone())).await),
        StoreSettings::Folder(folder) => Arc::new(FolderStore::open(folder)?),
    })
}

/// Threads for work that requests must not feel. Loads and unpacking have bounds of their own. Unloads have none but the number
/// of these threads; mostly there are about as many as loads. And some work may hang, which must not keep others waiting.
fn background(settings: &Settings) -> Result<Background> {
    let threads = 2 * settings.load_concurrency.get() + settings.downloads.config.archives.get() + HANGING;
    Background::start(settings.load_niceness, threads).context("cannot start threads for loading models")
}

fn disk_config(settings: &Settings, background: Background) -> DiskCacheConfig {
    let mut config = DiskCacheConfig::new(&settings.disk_cache, settings.disk_cache_bytes);
    config.background = background;
    config.download_timeout = settings.downloads.timeout;
    config.download = settings.downloads.config.clone();
    config.limits = UnpackLimits {
        max_files: settings.max_archive_files,
        max_unpacked_bytes: settings.max_archive_bytes,
        max_expansion_ratio: settings.max_archive_ratio,
        ..UnpackLimits::default()
    };
    config
}

fn cache_config(settings: &Settings, gpus: &[Gpu], background: Background) -> Result<ModelCacheConfig> {
    let freed = FreedMemory::of(background.clone()).context("cannot start a thread")?;
    let host = settings.model_memory_bytes.unwrap_or_else(default_model_memory);
    let mut budget = MemoryUsage::on(Device::Host, host);
    let gpus = settings.gpu_memory.divide(gpus, &mut budget)?;
    Ok(ModelCacheConfig {
        metric_options: settings.metrics.options,
        response_cache_bytes: settings.response_cache_bytes,
        budget,
        eviction_policy: settings.eviction_policy,
        gpus,
        store_check_interval: settings.store_check_interval,
        missing_key_ttl: settings.downloads.missing_key_ttl,
        replace_without_room: settings.replace_without_room,
        download_timeout: settings.downloads.timeout,
        load_timeout: settings.load_timeout,
        room_timeout: settings.room_timeout,
        download_concurrency: settings.downloads.config.archives,
        load_concurrency: settings.load_concurrency,
        load_queue_size: settings.load_queue_size,
        execution_concurrency: settings.execution_concurrency,
        rate_limits: settings.rate_limits.clone(),
        metrics_model_limit: settings.metrics_model_limit,
        repositories: settings.repositories.clone(),
        scratch: std::env::temp_dir(),
        background,
        after_unload: AfterUnload::new(move || freed.give_back()),
        scheduler: SchedulerConfig {
            max_queue_size: settings.max_queue_size,
            infer_timeout: settings.infer_timeout,
            adaptive_batching: settings.adaptive_batching,
            stream: StreamConfig {
                buffer_size: settings.stream_buffer_size,
                stall_timeout: settings.stream_stall_timeout,
            },
        },
    })
}

fn backends(settings: &Settings, gpus: &[u32]) -> Result<Backends> {
    let built_in: [Arc<dyn Backend>; 5] = [
        Arc::new(IdentityBackend),
        Arc::new(RepeatBackend),
        Arc::new(SquareBackend),
        Arc::new(TokenizerBackend),
        Arc::new(PoolingBackend),
    ];
    let backends = Backends::new(built_in);
    let config = OnnxRuntimeConfig {
        library: settings.ort_library.clone().unwrap_or_else(|| PathBuf::from(ORT_LIBRARY)),
        intra_op_threads: None::<NonZeroUsize>,
        require_gpu: settings.require_gpu,
        weights: settings.weights,
        gpus: gpus.to_vec(),
    };
    match OnnxRuntimeBackend::start(config) {
        Ok(backend) => Ok(backends.with(backend)),
        Err(error) if settings.ort_library.is_some() => Err(error).context("the backend 'onnxruntime' does not start"),
        Err(error) => {
            tracing::warn!("ONNX models cannot be served: {error:#}");
            Ok(backends.without(OnnxRuntimeBackend::NAME, error))
        }
    }
}

/// What the front end is told.
pub(crate) fn frontend_config(settings: &Settings) -> FrontendConfig {
    FrontendConfig {
        max_request_size: settings.max_request_bytes,
        max_response_size: settings.max_response_bytes,
        body_timeout: settings.body_timeout,
        invocation_timeout: settings.invocation_timeout,
        registered_roots: settings.sagemaker_model_roots.clone(),
        grpc_compression: settings.transport.grpc_compression,
        http_restrictions: settings.http_restrictions.clone(),
        grpc_restrictions: settings.grpc_restrictions.clone(),
        http_header_forward: settings.http_header_forward.clone(),
        grpc_header_forward: settings.grpc_header_forward.clone(),
        ..FrontendConfig::default()
    }
}

/// The memory that clients may share; that of GPUs where the CUDA driver can be loaded.
pub(crate) fn shared_memory(settings: &Settings) -> SharedMemory {
    let Some(regions) = settings.client_shm_regions else { return SharedMemory::off() };
    let devices = CudaMemory::find().map(|memory| Arc::new(memory) as Arc<dyn DeviceMemory>);
    SharedMemory::allowed(regions.get(), devices)
}

/// Which requests are traced.
pub(crate) fn tracing(settings: &Settings, spans: Arc<SpanQueue>) -> Tracing {
    Tracing::new(spans, settings.trace.settings, settings.trace.details())
}

/// What all ports are told about connections.
pub(crate) fn serve_config(settings: &Settings) -> ServeConfig {
    ServeConfig {
        max_connections: settings.max_connections.get(),
        idle_timeout: settings.idle_timeout,
        write_timeout: settings.write_timeout,
        drain_grace: settings.drain_delay,
        drain_timeout: settings.drain_timeout,
        ..ServeConfig::default()
    }
}

/// What the HTTP port is told beyond that.
pub(crate) fn http_config(settings: &Settings) -> ServeConfig {
    ServeConfig { tls: settings.transport.http_tls.clone(), ..serve_config(settings) }
}

/// What the gRPC port is told beyond that.
pub(crate) fn grpc_config(settings: &Settings) -> ServeConfig {
    let TransportSettings { grpc_tls, grpc_keep_alive, .. } = settings.transport.clone();
    ServeConfig { tls: grpc_tls, keep_alive: grpc_keep_alive, ..serve_config(settings) }
}

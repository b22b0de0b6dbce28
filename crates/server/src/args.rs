//! The command line: each option's name, environment variable, default and documentation in one place.
//!
//! Options that Triton's server also has keep Triton's name and meaning. The README's table is generated from here.

use std::net::IpAddr;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use humantime::Duration;
use inference::Weights;
use model_cache::ReplaceWithoutRoom;
use model_cache::policy::EvictionPolicy;

use crate::gpus::GpuMemory;
use crate::settings::DownloadArgs;
use crate::transport::TransportArgs;

/// A multi-model inference server: serves model archives on demand from a bucket or a folder.
#[derive(Debug, Parser)]
#[command(name = "panoply", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve models until SIGTERM or Ctrl-C
    Serve(Box<ServeArgs>),
    /// Print the table of options as Markdown, as the README has it
    #[command(hide = true)]
    OptionsTable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum RateLimit {
    /// Every instance runs as soon as there is something to run.
    Off,
    /// By resources, and by how often instances have run.
    ExecutionCount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// `--eviction-policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Eviction {
    Lru,
    #[value(name = "s3-fifo")]
    S3Fifo,
    Cost,
}

impl From<Eviction> for EvictionPolicy {
    fn from(eviction: Eviction) -> Self {
        match eviction {
            Eviction::Lru => EvictionPolicy::Lru,
            Eviction::S3Fifo => EvictionPolicy::S3Fifo,
            Eviction::Cost => EvictionPolicy::Cost,
        }
    }
}

/// `--model-control-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ControlMode {
    None,
    Poll,
    Explicit,
}

/// `--replace-without-room`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WithoutRoom {
    Keep,
    Gap,
}

impl From<WithoutRoom> for ReplaceWithoutRoom {
    fn from(how: WithoutRoom) -> Self {
        match how {
            WithoutRoom::Keep => ReplaceWithoutRoom::Keep,
            WithoutRoom::Gap => ReplaceWithoutRoom::Gap,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) models: ModelArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) downloads: DownloadArgs,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) transport: TransportArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) operation: OperationArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Models")]
pub(crate) struct ModelArgs {
    /// Where archives come from: `s3://bucket/prefix`, or a folder of `.tar.gz` files
    #[arg(long, env = "PANOPLY_MODEL_STORE", value_name = "URL|DIR")]
    pub(crate) model_store: Option<String>,
    /// An unpacked model repository, as Triton has it; may be given several times
    #[arg(long, env = "PANOPLY_MODEL_REPOSITORY", value_name = "DIR", value_delimiter = ',')]
    pub(crate) model_repository: Vec<PathBuf>,
    /// Who decides what of unpacked repositories is loaded: `none` (all, at start), `poll` (their files), `explicit` (clients)
    #[arg(long, env = "PANOPLY_MODEL_CONTROL_MODE", value_name = "MODE", default_value = "none")]
    pub(crate) model_control_mode: ControlMode,
    /// In mode `poll`, how many seconds lie between two looks at the files
    #[arg(long, env = "PANOPLY_REPOSITORY_POLL_SECS", value_name = "N", default_value = "15")]
    pub(crate) repository_poll_secs: u64,
    /// In mode `explicit`, a model to load at start, `*` for all; may be given several times
    #[arg(long, env = "PANOPLY_LOAD_MODEL", value_name = "NAME", value_delimiter = ',')]
    pub(crate) load_model: Vec<String>,
    /// An archive of the store to load at start, in the background, and to keep in memory until it is unloaded by name; may be
    /// given several times, the most important first
    #[arg(long, env = "PANOPLY_LOAD_TARGET_MODEL", value_name = "KEY", value_delimiter = ',')]
    pub(crate) load_target_model: Vec<String>,
    /// Be ready only when each of them is in memory, or cannot be loaded
    #[arg(long, env = "PANOPLY_AWAIT_TARGET_MODELS")]
    pub(crate) await_target_models: bool,
    /// Load again at start, in the background, what was in memory when the server stopped, as far as it is on disk and fits
    #[arg(long, env = "PANOPLY_RESTORE_RESIDENT", value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub(crate) restore_resident: bool,
    /// End when a model of a repository cannot be loaded at start
    #[arg(long, env = "PANOPLY_EXIT_ON_ERROR", value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub(crate) exit_on_error: bool,
    /// Be ready only while no model of a repository has failed to load
    #[arg(long, env = "PANOPLY_STRICT_READINESS", value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub(crate) strict_readiness: bool,
    /// The S3 endpoint, where it is not Amazon's
    #[arg(long, env = "PANOPLY_S3_ENDPOINT", value_name = "URL")]
    pub(crate) s3_endpoint: Option<String>,
    /// The S3 region; otherwise the AWS SDK's own sources decide
    #[arg(long, env = "PANOPLY_S3_REGION", value_name = "REGION")]
    pub(crate) s3_region: Option<String>,
    /// Put the bucket into the path instead of the host name, as most S3 servers other than Amazon's want
    #[arg(long, env = "PANOPLY_S3_PATH_STYLE")]
    pub(crate) s3_path_style: bool,
    /// Send unsigned requests; otherwise credentials come from the AWS SDK's default chain
    #[arg(long, env = "PANOPLY_S3_ANONYMOUS")]
    pub(crate) s3_anonymous: bool,
    /// Within this time the store is asked once about each archive in memory, and what was replaced or deleted there follows; a load
    /// from disk asks when the last answer is older. `0s`: every load asks, and what is in memory stays as it is
    #[arg(long, env = "PANOPLY_STORE_CHECK_INTERVAL", value_name = "TIME", default_value = "60s")]
    pub(crate) store_check_interval: Duration,
    /// The ONNX Runtime library; found next to the binary or by the system's loader when not given
    #[arg(long, env = "PANOPLY_ORT_LIBRARY", value_name = "FILE")]
    pub(crate) ort_library: Option<PathBuf>,
    /// Refuse models that ask for a GPU when there is none, instead of running them on the CPU
    #[arg(long, env = "PANOPLY_REQUIRE_GPU")]
    pub(crate) require_gpu: bool,
    /// Where the weights of ONNX models are: `private` (in memory), `mapped` (in the disk cache's files), `auto` (mapped, and private while a model is much used); a model overrides it with the parameter `weights`
    #[arg(long, env = "PANOPLY_WEIGHTS", value_name = "CHOICE", default_value = "private", value_parser = weights)]
    pub(crate) weights: Weights,
}

fn weights(name: &str) -> Result<Weights, String> {
    Weights::from_name(name).ok_or_else(|| format!("expected one of {}", Weights::ALL.map(Weights::name).join(", ")))
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Caches")]
pub(crate) struct CacheArgs {
    /// The folder of the disk cache
    #[arg(long, env = "PANOPLY_DISK_CACHE", value_name = "DIR", default_value = "/var/cache/panoply")]
    pub(crate) disk_cache: PathBuf,
    /// Bytes of unpacked archives that the disk cache may hold
    #[arg(long, env = "PANOPLY_DISK_CACHE_SIZE", value_name = "SIZE", default_value = "20GiB")]
    pub(crate) disk_cache_size: ByteSize,
    /// Bytes of host memory that loaded models may take [default: 60 % of the cgroup's or the machine's memory]
    #[arg(long, env = "PANOPLY_MODEL_MEMORY", value_name = "SIZE")]
    pub(crate) model_memory: Option<ByteSize>,
    /// Bytes of each GPU that loaded models may take, or a percentage of what is free on it at start; of one GPU as `0=4GiB`, of
    /// several as `0=4GiB,1=50%`; 0 for none [default: 80%]
    #[arg(long, env = "PANOPLY_GPU_MEMORY", value_name = "SIZE")]
    pub(crate) gpu_memory: Option<GpuMemory>,
    /// Bytes of answers that the response cache may hold, for models with `response_cache { enable: true }`; Triton's older name
    /// for `--cache-config local,size=BYTES` [default: no response cache]
    #[arg(long, env = "PANOPLY_RESPONSE_CACHE_BYTE_SIZE", value_name = "SIZE")]
    pub(crate) response_cache_byte_size: Option<ByteSize>,
    /// The response cache, as Triton is told of it: `local,size=BYTES`
    #[arg(long, env = "PANOPLY_CACHE_CONFIG", value_name = "CACHE,KEY=VALUE")]
    pub(crate) cache_config: Option<String>,
    /// What leaves memory first: what was used least recently (lru), what is used only once (s3-fifo, which withstands scans), or
    /// what saves the fewest load seconds per byte (cost)
    #[arg(long, env = "PANOPLY_EVICTION_POLICY", value_name = "lru|s3-fifo|cost", default_value = "lru")]
    pub(crate) eviction_policy: Eviction,
    /// What becomes of an archive whose new version does not fit in memory beside the one that serves: `keep` (the old version serves
    /// on) or `gap` (it is unloaded first; requests wait until the new one is loaded)
    #[arg(long, env = "PANOPLY_REPLACE_WITHOUT_ROOM", value_name = "keep|gap", default_value = "keep")]
    pub(crate) replace_without_room: WithoutRoom,
    /// How long a load waits for models in use to make room before it is refused
    #[arg(long, env = "PANOPLY_ROOM_TIMEOUT", value_name = "TIME", default_value = "10s")]
    pub(crate) room_timeout: Duration,
    /// How many archives are loaded at once
    #[arg(long, env = "PANOPLY_LOAD_CONCURRENCY", value_name = "N", default_value = "2")]
    pub(crate) load_concurrency: usize,
    /// How much lower than that of requests the priority of loading, warming up, unloading and unpacking is: 0 to 19, as `nice`
    /// has it
    #[arg(long, env = "PANOPLY_LOAD_NICENESS", value_name = "N", default_value = "10", value_parser = clap::value_parser!(u8).range(0..=19))]
    pub(crate) load_niceness: u8,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArgs {
    /// The address to listen on, for every port that has none of its own
    #[arg(long, env = "PANOPLY_HTTP_ADDRESS", value_name = "IP", default_value = "0.0.0.0")]
    pub(crate) http_address: IpAddr,
    /// The port of KServe v2 and of the SageMaker runtime API; 0 picks a free one
    #[arg(long, env = "PANOPLY_HTTP_PORT", value_name = "PORT", default_value = "8000")]
    pub(crate) http_port: u16,
    /// The port of gRPC; 0 picks a free one
    #[arg(long, env = "PANOPLY_GRPC_PORT", value_name = "PORT", default_value = "8001")]
    pub(crate) grpc_port: u16,
    /// The address of the gRPC port [default: as the other ports]
    #[arg(long, env = "PANOPLY_GRPC_ADDRESS", value_name = "IP")]
    pub(crate) grpc_address: Option<IpAddr>,
    /// The port of `/metrics`; 0 picks a free one
    #[arg(long, env = "PANOPLY_METRICS_PORT", value_name = "PORT", default_value = "8002")]
    pub(crate) metrics_port: u16,
    /// The port of the SageMaker container contract; 0 picks a free one
    #[arg(long, env = "PANOPLY_SAGEMAKER_PORT", value_name = "PORT", default_value = "8080")]
    pub(crate) sagemaker_port: u16,
    /// Folders below which `POST /models` of the container contract may load from; may be given several times
    #[arg(
        long,
        env = "PANOPLY_SAGEMAKER_MODEL_ROOT",
        value_name = "DIR",
        value_delimiter = ',',
        default_value = "/opt/ml/models"
    )]
    pub(crate) sagemaker_model_root: Vec<PathBuf>,
    /// Connections that may be open at once on each port; further ones wait to be accepted
    #[arg(long, env = "PANOPLY_MAX_CONNECTIONS", value_name = "N", default_value = "16384")]
    pub(crate) max_connections: usize,
    /// How long a connection may idle between requests, or take to send a request's head
    #[arg(long, env = "PANOPLY_IDLE_TIMEOUT", value_name = "TIME", default_value = "75s")]
    pub(crate) idle_timeout: Duration,
    /// How long the next part of a request's body may take to arrive
    #[arg(long, env = "PANOPLY_BODY_TIMEOUT", value_name = "TIME", default_value = "30s")]
    pub(crate) body_timeout: Duration,
    /// APIs of the HTTP port that answer only to requests with this header, like `inference,health:key=value`; the groups are
    /// Triton's; may be given several times
    #[arg(long, env = "PANOPLY_HTTP_RESTRICTED_API", value_name = "APIS:KEY=VALUE", value_delimiter = ';')]
    pub(crate) http_restricted_api: Vec<String>,
    /// The same for the gRPC port, where the header is `triton-grpc-protocol-` and the key
    #[arg(long, env = "PANOPLY_GRPC_RESTRICTED_PROTOCOL", value_name = "APIS:KEY=VALUE", value_delimiter = ';')]
    pub(crate) grpc_restricted_protocol: Vec<String>,
    /// Headers of HTTP requests that become parameters of the request: a regular expression for whole names
    #[arg(long, env = "PANOPLY_HTTP_HEADER_FORWARD_PATTERN", value_name = "REGEX")]
    pub(crate) http_header_forward_pattern: Option<String>,
    /// The same for the metadata of gRPC calls
    #[arg(long, env = "PANOPLY_GRPC_HEADER_FORWARD_PATTERN", value_name = "REGEX")]
    pub(crate) grpc_header_forward_pattern: Option<String>,
    /// How long a client may read nothing of its answer before its connection is closed
    #[arg(long, env = "PANOPLY_WRITE_TIMEOUT", value_name = "TIME", default_value = "60s")]
    pub(crate) write_timeout: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// The largest request body
    #[arg(long, env = "PANOPLY_MAX_REQUEST_SIZE", value_name = "SIZE", default_value = "256MiB")]
    pub(crate) max_request_size: ByteSize,
    /// The largest response body
    #[arg(long, env = "PANOPLY_MAX_RESPONSE_SIZE", value_name = "SIZE", default_value = "256MiB")]
    pub(crate) max_response_size: ByteSize,
    /// How many inference requests may be worked on at once in the whole server
    #[arg(long, env = "PANOPLY_MAX_REQUESTS_IN_FLIGHT", value_name = "N", default_value = "4096")]
    pub(crate) max_requests_in_flight: u64,
    /// How many bytes the bodies of all requests at work may hold together
    #[arg(long, env = "PANOPLY_MAX_BUFFERED_BYTES", value_name = "SIZE", default_value = "1GiB")]
    pub(crate) max_buffered_bytes: ByteSize,
    /// How long loading an archive's models may take, once it is on disk
    #[arg(long, env = "PANOPLY_LOAD_TIMEOUT", value_name = "TIME", default_value = "5m")]
    pub(crate) load_timeout: Duration,
    /// How long a request may wait and run, or a decoupled model take for its next response; a model overrides it with the
    /// parameter `infer_timeout`
    #[arg(long, env = "PANOPLY_INFER_TIMEOUT", value_name = "TIME", default_value = "60s")]
    pub(crate) infer_timeout: Duration,
    /// How many responses of a decoupled model may wait for their client before the model waits for it
    #[arg(long, env = "PANOPLY_STREAM_BUFFER_SIZE", value_name = "N", default_value = "16")]
    pub(crate) stream_buffer_size: usize,
    /// How long a decoupled model may wait for a slow client, over all responses of a request
    #[arg(long, env = "PANOPLY_STREAM_STALL_TIMEOUT", value_name = "TIME", default_value = "30s")]
    pub(crate) stream_stall_timeout: Duration,
    /// How long an invocation of the SageMaker runtime API may take, a load included
    #[arg(long, env = "PANOPLY_INVOCATION_TIMEOUT", value_name = "TIME", default_value = "60s")]
    pub(crate) invocation_timeout: Duration,
    /// How many requests may wait for an instance of one model
    #[arg(long, env = "PANOPLY_MAX_QUEUE_SIZE", value_name = "N", default_value = "1024")]
    pub(crate) max_queue_size: usize,
    /// Let models with dynamic batching learn how long a request should wait for others, within their max_queue_delay_microseconds; a model overrides it with the parameter `adaptive_batching`
    #[arg(long, env = "PANOPLY_ADAPTIVE_BATCHING")]
    pub(crate) adaptive_batching: bool,
    /// How many requests may wait for one archive to be loaded
    #[arg(long, env = "PANOPLY_LOAD_QUEUE_SIZE", value_name = "N", default_value = "1024")]
    pub(crate) load_queue_size: usize,
    /// How many executions may run at once in the whole server [default: twice the number of cores]
    #[arg(long, env = "PANOPLY_EXECUTION_CONCURRENCY", value_name = "N")]
    pub(crate) execution_concurrency: Option<usize>,
    /// Whether clients may register shared memory of this machine and its GPUs, and refer to it instead of sending tensors
    #[arg(
        long,
        env = "PANOPLY_ALLOW_CLIENT_SHM",
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true"
    )]
    pub(crate) allow_client_shm: bool,
    /// How many regions of shared memory clients may have registered at once
    #[arg(long, env = "PANOPLY_MAX_CLIENT_SHM_REGIONS", value_name = "N", default_value = "512")]
    pub(crate) max_client_shm_regions: usize,
    /// Whether instances run only when the resources that their rate_limiter names are free, and by its priority: off or execution_count
    #[arg(long, env = "PANOPLY_RATE_LIMIT", value_name = "off|execution_count", default_value = "off")]
    pub(crate) rate_limit: RateLimit,
    /// How much there is of a resource, on each device or on one GPU; may be given several times. Otherwise there is as much as the instance needs that needs most
    #[arg(long, env = "PANOPLY_RATE_LIMIT_RESOURCE", value_name = "NAME:COUNT[:GPU]", value_delimiter = ',')]
    pub(crate) rate_limit_resource: Vec<String>,
    /// How many entries an archive may have
    #[arg(long, env = "PANOPLY_MAX_ARCHIVE_FILES", value_name = "N", default_value = "100000")]
    pub(crate) max_archive_files: u64,
    /// How many bytes an archive may unpack to
    #[arg(long, env = "PANOPLY_MAX_ARCHIVE_SIZE", value_name = "SIZE", default_value = "20GiB")]
    pub(crate) max_archive_size: ByteSize,
    /// How many times larger than itself an archive may unpack to
    #[arg(long, env = "PANOPLY_MAX_ARCHIVE_RATIO", value_name = "N", default_value = "200")]
    pub(crate) max_archive_ratio: u64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Operation")]
pub(crate) struct OperationArgs {
    /// After SIGTERM, how long new requests are still answered while `/v2/health/ready` says no
    #[arg(long, env = "PANOPLY_DRAIN_DELAY", value_name = "TIME", default_value = "2s")]
    pub(crate) drain_delay: Duration,
    /// After that, how long requests in flight may take to finish
    #[arg(long, env = "PANOPLY_DRAIN_TIMEOUT", value_name = "TIME", default_value = "30s")]
    pub(crate) drain_timeout: Duration,
    /// Which requests are traced, and where spans go, as Triton has it: `rate=100`, `level=TIMESTAMPS`, `count=-1`, `opentelemetry,url=localhost:4318/v1/traces`, `opentelemetry,resource=service.name=ranker`, `opentelemetry,bsp_max_queue_size=2048`; may be given several times
    #[arg(long, env = "PANOPLY_TRACE_CONFIG", value_name = "SETTING", value_delimiter = ';')]
    pub(crate) trace_config: Vec<String>,
    /// How many model names metrics tell apart; the rest is counted as `other`
    #[arg(long, env = "PANOPLY_METRICS_MODEL_LIMIT", value_name = "N", default_value = "1000")]
    pub(crate) metrics_model_limit: usize,
    /// Serve metrics; `--allow-metrics=false` keeps their port closed
    #[arg(long, env = "PANOPLY_ALLOW_METRICS", value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub(crate) allow_metrics: bool,
    /// Measure the machine's CPU and memory for the metrics (`nv_cpu_*`)
    #[arg(long, env = "PANOPLY_ALLOW_CPU_METRICS", value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub(crate) allow_cpu_metrics: bool,
    /// How often they are measured, in milliseconds
    #[arg(long, env = "PANOPLY_METRICS_INTERVAL_MS", value_name = "N", default_value = "2000")]
    pub(crate) metrics_interval_ms: u64,
    /// Metrics that are off unless asked for, as Triton is told of them: `summary_latencies=true` for summaries of latencies,
    /// `summary_quantiles=0.5:0.05,0.99:0.001` for other quantiles, `histogram_latencies=true` for histograms of times to the
    /// first response of decoupled models; may be given several times
    #[arg(long, env = "PANOPLY_METRICS_CONFIG", value_name = "KEY=VALUE", value_delimiter = ';')]
    pub(crate) metrics_config: Vec<String>,
    /// Log lines as text or as JSON
    #[arg(long, env = "PANOPLY_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Which log lines: a level, or `tracing` directives such as `info,model_cache=debug`
    #[arg(long, env = "PANOPLY_LOG", value_name = "LEVEL", default_value = "info,ort=warn")]
    pub(crate) log: String,
}

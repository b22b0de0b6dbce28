//! Arguments checked and typed: every problem is found, and reported, before a port is bound.

mod at_start;
mod downloads;
mod metrics;
mod rate_limits;
mod response_cache;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use frontend::{HeaderForward, Restrictions};
use inference::Weights;
use model_cache::policy::EvictionPolicy;
use model_cache::{InitialModels, ModelControlMode, ReplaceWithoutRoom, RepositoryConfig};
use repository::{S3Config, S3Credentials};
use scheduler::ResourceLimit;

use crate::args::{ControlMode, LimitArgs, LogFormat, ModelArgs, NetworkArgs, OperationArgs, ServeArgs};
use crate::gpus::GpuMemory;
use crate::tracing_config::{self, TraceConfig};
use crate::transport::TransportSettings;

pub(crate) use at_start::AtStart;
pub(crate) use downloads::{DownloadArgs, DownloadSettings};
pub(crate) use metrics::MetricsSettings;

/// Where archives come from.
#[derive(Clone, Debug)]
pub(crate) enum StoreSettings {
    /// A bucket.
    S3(S3Config),
    /// A folder of archives.
    Folder(PathBuf),
}

/// Where to listen.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) sagemaker: SocketAddr,
}

/// Everything that `panoply serve` was told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) store: Option<StoreSettings>,
    pub(crate) repositories: RepositoryConfig,
    pub(crate) at_start: AtStart,
    pub(crate) exit_on_error: bool,
    pub(crate) store_check_interval: Duration,
    pub(crate) replace_without_room: ReplaceWithoutRoom,
    pub(crate) ort_library: Option<PathBuf>,
    pub(crate) require_gpu: bool,
    pub(crate) weights: Weights,
    pub(crate) disk_cache: PathBuf,
    pub(crate) disk_cache_bytes: u64,
    pub(crate) model_memory_bytes: Option<u64>,
    pub(crate) gpu_memory: GpuMemory,
    pub(crate) response_cache_bytes: Option<u64>,
    pub(crate) eviction_policy: EvictionPolicy,
    pub(crate) room_timeout: Duration,
    pub(crate) load_concurrency: NonZeroUsize,
    pub(crate) load_niceness: u8,
    pub(crate) downloads: DownloadSettings,
    pub(crate) addresses: Addresses,
    pub(crate) transport: TransportSettings,
    pub(crate) sagemaker_model_roots: Vec<PathBuf>,
    pub(crate) max_connections: NonZeroUsize,
    pub(crate) idle_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) http_restrictions: Restrictions,
    pub(crate) grpc_restrictions: Restrictions,
    pub(crate) http_header_forward: Option<HeaderForward>,
    pub(crate) grpc_header_forward: Option<HeaderForward>,
    pub(crate) max_requests_in_flight: u64,
    pub(crate) max_buffered_bytes: u64,
    pub(crate) invocation_timeout: Duration,
    pub(crate) max_request_bytes: u64,
    pub(crate) max_response_bytes: u64,
    pub(crate) load_timeout: Duration,
    pub(crate) infer_timeout: Duration,
    pub(crate) stream_buffer_size: NonZeroUsize,
    pub(crate) stream_stall_timeout: Duration,
    pub(crate) max_queue_size: usize,
    pub(crate) adaptive_batching: bool,
    pub(crate) load_queue_size: usize,
    pub(crate) execution_concurrency: NonZeroUsize,
    /// What there is of resources; `None` where rates are not limited.
    pub(crate) rate_limits: Option<Vec<ResourceLimit>>,
    /// How many regions of shared memory clients may register; `None` where they may not.
    pub(crate) client_shm_regions: Option<NonZeroUsize>,
    pub(crate) max_archive_files: u64,
    pub(crate) max_archive_bytes: u64,
    pub(crate) max_archive_ratio: u64,
    pub(crate) drain_delay: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) metrics: MetricsSettings,
    pub(crate) metrics_model_limit: usize,
    pub(crate) trace: TraceConfig,
    pub(crate) log_format: LogFormat,
    pub(crate) log: String,
}

impl Settings {
    /// Checks the arguments.
    ///
    /// # Errors
    /// Every problem, one line each.
    pub(crate) fn from_args(args: ServeArgs) -> Result<Settings, Vec<String>> {
        let mut check = Check::default();
        let ServeArgs { models, cache, downloads, network, transport, limits, operation } = args;
        let settings = Settings {
            store: check.store(&models),
            repositories: check.repositories(&models),
            at_start: check.at_start(&models),
            exit_on_error: models.exit_on_error,
            store_check_interval: check.time("--store-check-interval", models.store_check_interval),
            replace_without_room: cache.replace_without_room.into(),
            ort_library: check.file("--ort-library", models.ort_library),
            require_gpu: models.require_gpu,
            weights: models.weights,
            disk_cache: cache.disk_cache.clone(),
            disk_cache_bytes: check.positive("--disk-cache-size", cache.disk_cache_size.as_u64()),
            model_memory_bytes: cache.model_memory.map(|size| check.positive("--model-memory", size.as_u64())),
            gpu_memory: cache.gpu_memory.clone().unwrap_or_default(),
            response_cache_bytes: check.option(response_cache::bytes(&cache)),
            eviction_policy: cache.eviction_policy.into(),
            room_timeout: check.time("--room-timeout", cache.room_timeout),
            load_concurrency: check.count("--load-concurrency", cache.load_concurrency),
            load_niceness: cache.load_niceness,
            downloads: check.downloads(&downloads),
            addresses: check.addresses(&network),
            transport: transport.check(&mut check.problems),
            sagemaker_model_roots: network.sagemaker_model_root,
            max_connections: check.connections("--max-connections", network.max_connections),
            idle_timeout: check.duration("--idle-timeout", network.idle_timeout),
            body_timeout: check.duration("--body-timeout", network.body_timeout),
            write_timeout: check.duration("--write-timeout", network.write_timeout),
            http_restrictions: check
                .parsed("--http-restricted-api", Restrictions::of_http(&network.http_restricted_api))
                .unwrap_or_default(),
            grpc_restrictions: check
                .parsed("--grpc-restricted-protocol", Restrictions::of_grpc(&network.grpc_restricted_protocol))
                .unwrap_or_default(),
            http_header_forward: check
                .pattern("--http-header-forward-pattern", network.http_header_forward_pattern.as_deref()),
            grpc_header_forward: check
                .pattern("--grpc-header-forward-pattern", network.grpc_header_forward_pattern.as_deref()),
            max_requests_in_flight: check.positive("--max-requests-in-flight", limits.max_requests_in_flight),
            max_buffered_bytes: check.buffered_bytes(&limits),
            invocation_timeout: check.duration("--invocation-timeout", limits.invocation_timeout),
            max_request_bytes: check.positive("--max-request-size", limits.max_request_size.as_u64()),
            max_response_bytes: check.positive("--max-response-size", limits.max_response_size.as_u64()),
            load_timeout: check.duration("--load-timeout", limits.load_timeout),
            infer_timeout: check.duration("--infer-timeout", limits.infer_timeout),
            stream_buffer_size: check.count("--stream-buffer-size", limits.stream_buffer_size),
            stream_stall_timeout: check.duration("--stream-stall-timeout", limits.stream_stall_timeout),
            max_queue_size: limits.max_queue_size,
            adaptive_batching: limits.adaptive_batching,
            load_queue_size: check.count("--load-queue-size", limits.load_queue_size).get(),
            execution_concurrency: check.execution_concurrency(limits.execution_concurrency),
            client_shm_regions: check.shm_regions(&limits),
            rate_limits: check.option(rate_limits::rate_limits(limits.rate_limit, &limits.rate_limit_resource)),
            max_archive_files: check.positive("--max-archive-files", limits.max_archive_files),
            max_archive_bytes: check.positive("--max-archive-size", limits.max_archive_size.as_u64()),
            max_archive_ratio: check.positive("--max-archive-ratio", limits.max_archive_ratio),
            drain_delay: check.time("--drain-delay", operation.drain_delay),
            drain_timeout: check.time("--drain-timeout", operation.drain_timeout),
            metrics: check.metrics(&operation),
            metrics_model_limit: operation.metrics_model_limit,
            trace: check.trace(&operation.trace_config),
            log_format: operation.log_format,
            log: operation.log,
        };
        if check.problems.is_empty() { Ok(settings) } else { Err(check.problems) }
    }
}

/// Executions wait for memory and for the runtime's own threads as well as for cores.
fn default_execution_concurrency() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    NonZeroUsize::new(2 * cores).unwrap_or(NonZeroUsize::MIN)
}

/// The longest time that makes sense, and that clocks can be added to.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// More connections than a machine has ports for one address.
const MAX_CONNECTIONS: usize = 1 << 20;

/// The problems found so far.
#[derive(Default)]
struct Check {
    problems: Vec<String>,
}

impl Check {
    fn execution_concurrency(&mut self, given: Option<usize>) -> NonZeroUsize {
        given.map_or_else(default_execution_concurrency, |count| self.count("--execution-concurrency", count))
    }

    fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    fn option<T>(&mut self, checked: Result<Option<T>, String>) -> Option<T> {
        checked.unwrap_or_else(|problem| {
            self.problem(problem);
            None
        })
    }

    fn metrics(&mut self, operation: &OperationArgs) -> MetricsSettings {
        let (settings, problems) = metrics::settings(operation);
        self.problems.extend(problems);
        settings
    }

    /// What was read from an option; `None` when it could not be.
    fn parsed<T>(&mut self, option: &str, outcome: Result<T, String>) -> Option<T> {
        outcome.map_err(|problem| self.problem(format!("{option}: {problem}"))).ok()
    }

    /// A pattern for names of headers; an empty one matches none, as in Triton.
    fn pattern(&mut self, option: &str, pattern: Option<&str>) -> Option<HeaderForward> {
        let pattern = pattern.filter(|pattern| !pattern.is_empty())?;
        self.parsed(option, HeaderForward::new(pattern))
    }

    fn positive(&mut self, option: &str, number: u64) -> u64 {
        if number == 0 {
            self.problem(format!("{option} must be more than 0"));
        }
        number
    }

    fn count(&mut self, option: &str, number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).unwrap_or_else(|| {
            self.problem(format!("{option} must be more than 0"));
            NonZeroUsize::MIN
        })
    }

    /// As many as a semaphore can count.
    fn connections(&mut self, option: &str, number: usize) -> NonZeroUsize {
        if number > MAX_CONNECTIONS {
            self.problem(format!("{option} must be at most {MAX_CONNECTIONS}"));
        }
        self.count(option, number.min(MAX_CONNECTIONS))
    }

    /// A body that is allowed by itself must be able to get in.
    fn buffered_bytes(&mut self, limits: &LimitArgs) -> u64 {
        let (all, one) = (limits.max_buffered_bytes.as_u64(), limits.max_request_size.as_u64());
        if all < one {
            self.problem(format!("--max-buffered-bytes ({all}) must be at least --max-request-size ({one})"));
        }
        self.positive("--max-buffered-bytes", all)
    }

    /// A time that may be 0.
    fn time(&mut self, option: &str, duration: humantime::Duration) -> Duration {
        if *duration > LONGEST {
            self.problem(format!("{option} must be at most one year"));
        }
        LONGEST.min(duration.into())
    }

    fn shm_regions(&mut self, limits: &LimitArgs) -> Option<NonZeroUsize> {
        let count = self.count("--max-client-shm-regions", limits.max_client_shm_regions);
        limits.allow_client_shm.then_some(count)
    }

    fn duration(&mut self, option: &str, duration: humantime::Duration) -> Duration {
        if duration.is_zero() {
            self.problem(format!("{option} must be more than 0s"));
        }
        self.time(option, duration)
    }

    fn trace(&mut self, entries: &[String]) -> TraceConfig {
        let (config, problems) = TraceConfig::read(entries, tracing_config::variable);
        problems.into_iter().for_each(|problem| self.problem(problem));
        config
    }

    fn at_start(&mut self, args: &ModelArgs) -> AtStart {
        let (at_start, problems) = AtStart::of(args);
        self.problems.extend(problems);
        at_start
    }

    fn folders(&mut self, option: &str, folders: Vec<PathBuf>) -> Vec<PathBuf> {
        for folder in folders.iter().filter(|folder| !folder.is_dir()) {
            self.problem(format!("{option} {}: no such folder", folder.display()));
        }
        folders
    }

    fn repositories(&mut self, args: &ModelArgs) -> RepositoryConfig {
        let names = &args.load_model;
        if !names.is_empty() && args.model_control_mode != ControlMode::Explicit {
            self.problem("--load-model needs --model-control-mode explicit".to_owned());
        }
        if names.len() > 1 && names.iter().any(|name| name == "*") {
            self.problem("--load-model '*' means every model; leave the other names out".to_owned());
        }
        let interval = self.positive("--repository-poll-secs", args.repository_poll_secs);
        RepositoryConfig {
            folders: self.folders("--model-repository", args.model_repository.clone()),
            control: match args.model_control_mode {
                ControlMode::None => ModelControlMode::None,
                ControlMode::Poll => ModelControlMode::Poll(LONGEST.min(Duration::from_secs(interval))),
                ControlMode::Explicit if *names == ["*"] => ModelControlMode::Explicit(InitialModels::All),
                ControlMode::Explicit => ModelControlMode::Explicit(InitialModels::Named(names.clone())),
            },
            strict_readiness: args.strict_readiness,
        }
    }

    fn file(&mut self, option: &str, file: Option<PathBuf>) -> Option<PathBuf> {
        if let Some(file) = file.as_deref().filter(|file| !file.is_file()) {
            self.problem(format!("{option} {}: no such file", file.display()));
        }
        file
    }

    fn store(&mut self, args: &ModelArgs) -> Option<StoreSettings> {
        let is_s3 = args.model_store.as_deref().is_some_and(|store| store.starts_with("s3://"));
        let has_s3_options =
            args.s3_endpoint.is_some() || args.s3_region.is_some() || args.s3_path_style || args.s3_anonymous;
        if has_s3_options && !is_s3 {
            self.problem("--s3-* options need --model-store s3://bucket/prefix".to_owned());
        }
        let store = args.model_store.as_deref()?;
        let Some(path) = store.strip_prefix("s3://") else { return self.folder_store(store) };
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        if bucket.is_empty() {
            self.problem(format!("--model-store {store}: the bucket is missing; write s3://bucket/prefix"));
        }
        let credentials = if args.s3_anonymous { S3Credentials::Anonymous } else { S3Credentials::DefaultChain };
        Some(StoreSettings::S3(S3Config {
            endpoint: args.s3_endpoint.clone(),
            region: args.s3_region.clone(),
            path_style: args.s3_path_style,
            credentials,
            ..S3Config::new(bucket, prefix)
        }))
    }

    fn folder_store(&mut self, store: &str) -> Option<StoreSettings> {
        if let Some((scheme, _)) = store.split_once("://") {
            self.problem(format!(
                "--model-store {store}: '{scheme}' is no store; write s3://bucket/prefix or a folder"
            ));
            return None;
        }
        let folder = PathBuf::from(store);
        if !folder.is_dir() {
            self.problem(format!("--model-store {store}: no such folder"));
        }
        Some(StoreSettings::Folder(folder))
    }

    fn addresses(&mut self, network: &NetworkArgs) -> Addresses {
        let ports = [network.http_port, network.grpc_port, network.metrics_port, network.sagemaker_port];
        let twice = |(index, port): (usize, &u16)| *port != 0 && ports[..index].contains(port);
        if ports.iter().enumerate().any(twice) {
            self.problem(format!(
                "--http-port, --grpc-port, --metrics-port and --sagemaker-port must differ; they are {ports:?}"
            ));
        }
        let address: IpAddr = network.http_address;
        let [http, mut grpc, metrics, sagemaker] = ports.map(|port| SocketAddr::new(address, port));
        grpc.set_ip(network.grpc_address.unwrap_or(address));
        Addresses { http, grpc, metrics, sagemaker }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    pub(super) fn settings(args: &[&str]) -> Result<Settings, Vec<String>> {
        let cli = Cli::try_parse_from(["panoply", "serve"].iter().chain(args)).expect("parses");
        match cli.command {
            Command::Serve(args) => Settings::from_args(*args),
            Command::OptionsTable => unreachable!("`serve` was parsed"),
        }
    }

    #[test]
    fn sizes_and_times_read_as_people_write_them() {
        let settings = settings(&["--model-memory", "512MiB", "--load-timeout", "30s"]).expect("valid");
        assert_eq!(settings.model_memory_bytes, Some(512 << 20));
        assert_eq!(settings.load_timeout, Duration::from_secs(30));
    }

    #[test]
    fn bounds_on_clients_are_settings() {
        let args = ["--max-connections", "7", "--idle-timeout", "1s", "--body-timeout", "2s", "--write-timeout", "3s"];
        let more = ["--invocation-timeout", "4s", "--max-requests-in-flight", "5", "--max-buffered-bytes", "300MiB"];
        let settings = settings(&[&args[..], &more].concat()).expect("valid");
        let serve = crate::wiring::serve_config(&settings);
        let config = crate::wiring::frontend_config(&settings);
        assert_eq!(serve.max_connections, 7);
        let times = [serve.idle_timeout, config.body_timeout, serve.write_timeout, config.invocation_timeout];
        assert_eq!(times, [1, 2, 3, 4].map(Duration::from_secs));
        assert_eq!((settings.max_requests_in_flight, settings.max_buffered_bytes), (5, 300 << 20));
    }

    #[test]
    fn a_single_body_must_fit_into_what_all_may_hold() {
        let problems = self::settings(&["--max-buffered-bytes", "1MiB"]).expect_err("one may have 256 MiB");
        assert!(problems[0].contains("must be at least --max-request-size"), "{problems:?}");
        let problems = self::settings(&["--max-connections", "18446744073709551615"]).expect_err("too many");
        assert!(problems[0].contains("--max-connections must be at most"), "{problems:?}");
    }

    #[test]
    fn model_control_reads_as_triton_has_it() {
        let control = |args: &[&str]| settings(args).map(|settings| settings.repositories.control);
        assert_eq!(control(&[]), Ok(ModelControlMode::None));
        let poll = ["--model-control-mode=poll", "--repository-poll-secs=3"];
        assert_eq!(control(&poll), Ok(ModelControlMode::Poll(Duration::from_secs(3))));
        let explicit = "--model-control-mode=explicit";
        assert_eq!(control(&[explicit, "--load-model=*"]), Ok(ModelControlMode::Explicit(InitialModels::All)));
        let named = InitialModels::Named(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(control(&[explicit, "--load-model=a", "--load-model=b"]), Ok(ModelControlMode::Explicit(named)));
        for wrong in [&["--load-model=a"][..], &[explicit, "--load-model=a", "--load-model=*"]] {
            assert!(control(wrong).expect_err("wrong")[0].contains("--load-model"), "{wrong:?}");
        }
        assert!(control(&["--repository-poll-secs=0"]).is_err());
        let settings = settings(&["--exit-on-error=false", "--strict-readiness=false"]).expect("valid");
        assert!(!settings.exit_on_error && !settings.repositories.strict_readiness);
    }

    #[test]
    fn a_bucket_and_its_prefix_are_told_apart() {
        for (store, expected) in [("s3://b", ("b", "")), ("s3://b/p/q", ("b", "p/q"))] {
            let settings = settings(&["--model-store", store]).expect("valid");
            let Some(StoreSettings::S3(config)) = settings.store else { panic!("{store} is a bucket") };
            assert_eq!((config.bucket.as_str(), config.prefix.as_str()), expected);
        }
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let problems = settings(&[
            "--model-store",
            "gs://bucket",
            "--s3-anonymous",
            "--http-port",
            "9",
            "--metrics-port",
            "9",
            "--load-timeout",
            "0s",
            "--max-request-size",
            "0B",
            "--http-restricted-api",
            "infer:key=value",
            "--grpc-header-forward-pattern",
            "(",
            "--ort-library",
            "/no/such.so",
            "--model-repository",
            "/no/such",
        ])
        .expect_err("much is wrong");
        let expected = [
            "'gs' is no store",
            "--s3-*",
            "must differ",
            "--load-timeout",
            "--max-request-size",
            "--http-restricted-api: unknown API 'infer'",
            "--grpc-header-forward-pattern",
            "/no/such.so",
            "--model-repository",
        ];
        for part in expected {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part} in {problems:?}");
        }
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
    }
}

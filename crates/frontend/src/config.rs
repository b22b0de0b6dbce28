//! What the front end is told at start-up, each bound with a name.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use inference::{InferenceService, ModelControl};

use crate::admission::Admission;
use crate::forward::HeaderForward;
use crate::logging::LogControl;
use crate::restriction::Restrictions;
use crate::shared_memory::SharedMemory;
use crate::trace::Tracing;

/// When answers over gRPC are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GrpcCompression {
    /// When their request was.
    #[default]
    AsRequest,
    /// Never.
    Never,
    /// Whenever the client can read it; 0 (fast) to 9 (small).
    Level(u32),
}

impl GrpcCompression {
    /// The level to compress with.
    pub(crate) fn level(self) -> u32 {
        match self {
            GrpcCompression::Level(level) => level,
            GrpcCompression::AsRequest | GrpcCompression::Never => 6,
        }
    }
}

/// Limits and names of the HTTP surfaces and of gRPC.
#[derive(Clone, Debug)]
pub struct FrontendConfig {
    /// The largest request body, in bytes (`--max-request-size`).
    pub max_request_size: u64,
    /// The largest response body, in bytes (`--max-response-size`).
    pub max_response_size: u64,
    /// How deep a request's JSON may nest, its outermost object included; at most [`FrontendConfig::MAX_JSON_DEPTH`].
    pub max_json_depth: usize,
    /// How long the next part of a request's body may take to arrive (`--body-timeout`).
    pub body_timeout: Duration,
    /// How long an invocation of the SageMaker runtime API may take, a load included (`--invocation-timeout`).
    pub invocation_timeout: Duration,
    /// `name` of `GET /v2`.
    pub server_name: String,
    /// `version` of `GET /v2`.
    pub server_version: String,
    /// The only endpoint name that the SageMaker runtime API answers to; any when `None`.
    pub endpoint: Option<String>,
    /// The production variant that answers name when the client named none.
    pub production_variant: String,
    /// When answers over gRPC are compressed (`--grpc-infer-response-compression-level`).
    pub grpc_compression: GrpcCompression,
    /// Which APIs of the HTTP port want a key (`--http-restricted-api`).
    pub http_restrictions: Restrictions,
    /// Which APIs of the gRPC port want a key (`--grpc-restricted-protocol`).
    pub grpc_restrictions: Restrictions,
    /// Which headers of HTTP requests become parameters (`--http-header-forward-pattern`).
    pub http_header_forward: Option<HeaderForward>,
    /// Which metadata of gRPC calls become parameters (`--grpc-header-forward-pattern`).
    pub grpc_header_forward: Option<HeaderForward>,
    /// Folders below which `POST /models` of the container contract may register repositories.
    pub registered_roots: Vec<PathBuf>,
}

impl FrontendConfig {
    /// The deepest nesting that can be allowed: reading recurses, and a thread's stack is finite.
    pub const MAX_JSON_DEPTH: usize = 256;
}

impl Default for FrontendConfig {
    fn default() -> Self {
        FrontendConfig {
            max_request_size: 64 << 20,
            max_response_size: 256 << 20,
            // Triton's bound.
            max_json_depth: 100,
            body_timeout: Duration::from_secs(30),
            // SageMaker's own bound for real-time endpoints.
            invocation_timeout: Duration::from_secs(60),
            server_name: "panoply".to_owned(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            endpoint: None,
            production_variant: "AllTraffic".to_owned(),
            grpc_compression: GrpcCompression::AsRequest,
            http_restrictions: Restrictions::default(),
            grpc_restrictions: Restrictions::default(),
            http_header_forward: None,
            grpc_header_forward: None,
            registered_roots: vec![PathBuf::from("/opt/ml/models")],
        }
    }
}

/// What lets requests in and answers them; shared by all routers.
#[derive(Clone)]
pub struct Services {
    /// Runs inferences.
    pub inference: Arc<dyn InferenceService>,
    /// Knows the models.
    pub control: Arc<dyn ModelControl>,
    /// The process's log.
    pub log: Arc<dyn LogControl>,
    /// Bounds what is worked on at once.
    pub admission: Admission,
    /// Regions of memory that clients share with the server.
    pub shared_memory: SharedMemory,
    /// Which requests are traced.
    pub tracing: Tracing,
}

//! The HTTP surfaces (KServe v2 with Triton's extensions, the SageMaker runtime API, the SageMaker container contract, the
//! metrics page) and gRPC. This crate alone knows wire formats; models are behind [`inference::InferenceService`].
//!
//! A request's way: [`serve`] (sockets, draining) → a router ([`http_router`], [`sagemaker_router`]) → one pipeline for every
//! HTTP surface (`infer`: read the body, decode, run, encode) → one table of statuses ([`status`]). [`grpc_router`] has the
//! same ends and a pipeline of its own.

mod admission;
mod answers;
mod body;
mod codec;
mod compression;
mod config;
mod connection;
mod decoupled;
mod eager;
mod encoding;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod gathered;
mod generate;
mod grpc;
mod http;
mod infer;
mod load_parameters;
mod logging;
mod outcome;
mod reply;
mod restriction;
mod sagemaker;
mod serve;
mod shared_memory;
pub mod status;
mod telemetry;
mod time_limit;
mod tls;
mod trace;
mod unread;
mod write_timeout;

use std::sync::Arc;

use ::http::HeaderMap;
use axum::Router;
use inference::Parameters;

pub use self::grpc::grpc_router;
pub use self::http::{http_router, metrics_router};
pub use admission::Admission;
pub use config::{FrontendConfig, GrpcCompression, Services};
pub use forward::HeaderForward;
pub use logging::{LogChange, LogControl, LogSettings, LogTime};
pub use restriction::Restrictions;
pub use sagemaker::sagemaker_router;
pub use serve::{DrainReport, KeepAlive, ServeConfig, serve};
pub use shared_memory::SharedMemory;
pub use telemetry::describe_metrics;
pub use tls::{Tls, TlsFiles};
pub use trace::{TraceLevel, TraceSettings, Tracing};

/// What every handler has at hand.
pub(crate) struct App {
    pub(crate) services: Services,
    pub(crate) config: FrontendConfig,
}

impl App {
    /// How deep a request's JSON may nest.
    pub(crate) fn max_json_depth(&self) -> usize {
        self.config.max_json_depth.min(FrontendConfig::MAX_JSON_DEPTH)
    }

    /// Adds the HTTP headers that models are to see to a request's parameters.
    pub(crate) fn forward(&self, headers: &HeaderMap, parameters: &mut Parameters) {
        if let Some(forward) = &self.config.http_header_forward {
            forward.apply(headers, parameters);
        }
    }

    /// The bounds of a body of at most `size` bytes.
    pub(crate) fn bounds(&self, size: u64) -> body::Bounds<'_> {
        body::Bounds { size, timeout: self.config.body_timeout, admission: &self.services.admission }
    }
}

/// [`App`], shared.
pub(crate) type Shared = Arc<App>;

/// Gives a router its state and what all routers have in common.
pub(crate) fn finish(router: Router<Shared>, services: Services, config: FrontendConfig) -> Router {
    let router = router.fallback(reply::unknown_route).method_not_allowed_fallback(reply::unknown_method);
    router.layer(reply::catch_panics()).with_state(Arc::new(App { services, config }))
}

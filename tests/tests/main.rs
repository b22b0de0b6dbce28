//! Everything that Panoply promises, shown over real sockets against the real binary.

mod bad_archives;
mod batching;
mod budget;
mod cancellation;
mod clients;
mod connections;
mod container;
mod crash;
mod cuda_shared_memory;
mod deadlines;
mod decoupled;
mod decoupled_telemetry;
mod density;
mod dialects;
mod disk;
mod downloads;
mod encoding;
mod ensembles;
mod errors;
mod eviction;
mod full_disk;
mod generate;
mod gpus;
mod grpc;
mod guarded;
mod invocations;
mod killed;
mod kserve;
mod layouts;
mod limits;
mod memory;
mod metrics;
mod misbehaving;
mod model_control;
#[cfg(target_arch = "x86_64")]
mod perf_analyzer;
mod placement;
mod real_models;
mod refresh;
mod response_cache;
mod restart;
mod room;
mod runtime;
mod scale;
mod sequences;
mod settings;
mod shared_memory;
mod shutdown;
mod single_flight;
mod statistics;
mod store_faults;
mod tiers;
mod tls;
mod tracing;
mod tritonclient;
mod versions;

use e2e::{Answer, Server, fp32, infer};

/// Asks the model of [`e2e::echo`] (or one with another output) for `data`.
async fn ask_echo(server: &Server, target: &str, data: &[f32]) -> Answer {
    server.invoke(target, &infer(&[fp32("X", data)])).await
}

/// Asserts that a text has all of these parts.
#[track_caller]
fn assert_has(text: &str, parts: &[impl AsRef<str>]) {
    for part in parts.iter().map(AsRef::as_ref) {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

//! What the benchmarks share: the server as a child process, a client that costs little, the backends without a server,
//! and figures from many rounds.
//!
//! Every comparison runs its contenders in turn, round after round, and reports medians over the rounds, because the
//! machines this runs on are shared and noisy.

pub mod arguments;
pub mod bare;
pub mod copies;
pub mod cores;
pub mod dense;
pub mod echo;
pub mod grpc;
pub mod http;
pub mod load;
pub mod machine;
pub mod payload;
pub mod perf_analyzer;
pub mod policies;
pub mod server;
pub mod server_timing;
pub mod statistics;
pub mod table;

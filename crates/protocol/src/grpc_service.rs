//! The messages and the service of `proto/grpc_service.proto`, server and client.

pub use crate::model_config::*;

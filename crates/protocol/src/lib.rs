//! Wire formats that are not ours: the types and the gRPC service generated from `proto/`, and the text format of `config.pbtxt`.

mod config;
mod descriptors;
mod fields;
pub mod grpc_service;
mod json;
pub mod model_config;
mod position;
mod suggest;
mod text_format;
mod wire;

pub use config::{ParsedConfig, parse_model_config, read_model_config};
pub use descriptors::FILE_DESCRIPTOR_SET;
pub use fields::{SetField, message_fields, set_fields};
pub use json::{model_config_json, parse_model_config_json};
pub use position::{ConfigProblem, Position, Positions};
pub use wire::{decode_model_config, encode_model_config, message_size};

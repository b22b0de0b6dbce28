//! The types of package `inference`: Triton's model configuration, generated from `proto/model_config.proto`.

#![allow(missing_docs, clippy::all, reason = "generated code")]

include!(concat!(env!("OUT_DIR"), "/inference.rs"));

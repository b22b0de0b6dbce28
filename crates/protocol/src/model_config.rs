//! The types of package `inference`, generated from `proto/`: Triton's model configuration (and, for want of a package of
//! its own, what [`crate::grpc_service`] shows).

#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]

include!(concat!(env!("OUT_DIR"), "/inference.rs"));

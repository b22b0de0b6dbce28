//! Compiles `proto/` into Rust types, the gRPC service's traits and an encoded descriptor set, with protox instead of
//! `protoc`.

use std::error::Error;
use std::path::{Path, PathBuf};

use protox::prost::Message;

/// Files below `proto/`; each becomes part of the module of its package.
const FILES: [&str; 2] = ["model_config.proto", "grpc_service.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    for file in FILES {
        println!("cargo::rerun-if-changed={}", folder.join(file).display());
    }
    let descriptors = protox::compile(FILES, [&folder])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run by cargo only")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // `bytes`: tensors stay slices of the message that they came in.
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors)?;
    Ok(())
}

//! Compiles `proto/` into Rust types and an encoded descriptor set, with protox instead of `protoc`.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost_build::Config;
use protox::prost::Message;

/// Files below `proto/`; each becomes part of the module of its package.
const FILES: [&str; 1] = ["model_config.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    for file in FILES {
        println!("cargo::rerun-if-changed={}", folder.join(file).display());
    }
    let descriptors = protox::compile(FILES, [&folder])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run by cargo only")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}

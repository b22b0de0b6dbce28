//! Where `cargo xtask setup` puts what tests need and the repository does not hold.

use std::path::PathBuf;

/// `target/panoply` of this checkout: `onnxruntime/libonnxruntime.so`, `venv`, `test-models`, `onnx-node-tests`, ….
///
/// # Panics
/// When it is not there.
pub fn artifacts() -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/panoply"));
    folder.canonicalize().unwrap_or_else(|_| panic!("there is no {}: run `cargo xtask setup` first", folder.display()))
}

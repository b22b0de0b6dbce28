//! ONNX models: those that `cargo xtask setup --tests` prepared, and those that only these tests need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::binary::target;

static GENERATED: OnceLock<PathBuf> = OnceLock::new();

/// A model of `target/panoply/test-models`.
///
/// # Panics
/// When it is not there.
pub fn prepared_model(name: &str) -> Vec<u8> {
    read(&test_util::artifacts().join("test-models"), name)
}

/// A model that `tests/python/make_models.py` makes.
///
/// # Panics
/// When the script does not make it.
pub fn generated_model(name: &str) -> Vec<u8> {
    read(GENERATED.get_or_init(generate), name)
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    let file = folder.join(name).with_extension("onnx");
    fs::read(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()))
}

fn generate() -> PathBuf {
    let folder = target().0.join("tmp/e2e-models");
    let made = Command::new(test_util::artifacts().join("venv/bin/python"))
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/make_models.py"))
        .arg(&folder)
        .status()
        .expect("the environment has a Python");
    assert!(made.success(), "make_models.py failed");
    folder
}

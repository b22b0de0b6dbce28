//! Model archives that many tests use.

use std::sync::OnceLock;

use serde_json::{Value, json};
use test_util::archive::ArchiveBuilder;

use crate::onnx::generated_model;
use crate::{Config, infer};

/// An archive with one `identity` model, FP32 [-1] `X` to `Y`.
pub fn echo() -> Vec<u8> {
    echo_named("echo", "Y")
}

/// An archive with one `identity` model, FP32 [-1] `X` to an output of this name: its answers tell which model gave them.
pub fn echo_named(model: &str, output: &str) -> Vec<u8> {
    let config = Config::new(model, "identity").input("X", "FP32", "-1").output(output, "FP32", "-1");
    ArchiveBuilder::new().file(&format!("{model}/config.pbtxt"), config.text()).directory(&format!("{model}/1")).gzip()
}

/// A configuration that batches FP32 [-1, 2] `X` to `Y`, up to 8 rows.
fn batching(config: Config) -> Config {
    config.line("max_batch_size: 8").input("X", "FP32", "2").output("Y", "FP32", "2")
}

/// An archive with one `identity` model that batches, FP32 [-1, 2] `X` to `Y`.
pub fn batching_archive(model: &str) -> Vec<u8> {
    let config = batching(Config::new(model, "identity"));
    ArchiveBuilder::new().file(&format!("{model}/config.pbtxt"), config.text()).directory(&format!("{model}/1")).gzip()
}

/// An archive of the ensemble `pipeline`, FP32 [-1, 2] `X` to `Y`, whose two steps are the `identity` models `first` and
/// `second`.
pub fn pipeline_archive() -> Vec<u8> {
    pipeline_of(Config::ensemble("pipeline"), ["first", "second"].map(|name| batching(Config::new(name, "identity"))))
}

/// The same with a beginning of the ensemble's configuration, and two models of one's own.
pub fn pipeline_of(ensemble: Config, steps: [Config; 2]) -> Vec<u8> {
    let [first, second] = steps.each_ref().map(Config::name);
    let ensemble = batching(ensemble).step(first, &[("X", "X")], &[("Y", "between")]);
    let ensemble = ensemble.step(second, &[("X", "between")], &[("Y", "Y")]);
    let add = |archive: ArchiveBuilder, config: &Config| {
        let name = config.name();
        archive.file(&format!("{name}/config.pbtxt"), config.text()).directory(&format!("{name}/1"))
    };
    steps.iter().chain([&ensemble]).fold(ArchiveBuilder::new(), add).gzip()
}

/// An archive with one ONNX model, its configuration taken from the model itself.
pub fn onnx_archive(name: &str, model: &[u8]) -> Vec<u8> {
    ArchiveBuilder::new().file(&format!("{name}/1/model.onnx"), model).gzip()
}

/// An archive whose model answers `y = factor * x` (FP32, `x` of shape [-1, 512]) and holds 1 MiB of weights. `factor` is
/// 1 to 10.
pub fn scaling_archive(factor: usize) -> Vec<u8> {
    onnx_archive("scaling", &generated_model(&format!("scaling_{factor}")))
}

/// An archive whose model answers `y = x + number` (FP32, both of shape [-1, 1]); a model of its own for every number.
///
/// # Panics
/// When the model that it is made from is not as expected.
pub fn adding_archive(number: u32) -> Vec<u8> {
    static MODEL: OnceLock<Vec<u8>> = OnceLock::new();
    // As `make_models.py` has it, where a number is to be put in.
    let placeholder = 123_456.79_f32.to_le_bytes();
    let mut model = MODEL.get_or_init(|| generated_model("adding")).clone();
    let place = model.windows(4).position(|bytes| bytes == placeholder).expect("the model has a placeholder");
    model[place..place + 4].copy_from_slice(&(number as f32).to_le_bytes());
    onnx_archive("adding", &model)
}

/// An archive whose model is busy for as many rounds as it is told to be.
pub fn spin_archive() -> Vec<u8> {
    onnx_archive("spin", &generated_model("spin"))
}

/// Keeps the model of [`spin_archive`] busy for so many rounds, each of some three microseconds, or less than one on a fast machine.
pub fn spin_request(rounds: u64) -> Value {
    infer(&[json!({ "name": "rounds", "datatype": "INT64", "shape": [1], "data": [rounds] })])
}

/// So many bytes that do not compress.
pub fn padding(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// An archive of the ensemble `twice`, `y = factor * factor * x` (FP32, `x` of shape [-1, 512]): both of its steps are the
/// model of [`scaling_archive`], so that an answer that comes from two archives shows it.
pub fn scaling_twice_archive(factor: usize) -> Vec<u8> {
    let tensors = |config: Config| config.input("x", "FP32", "-1, 512").output("y", "FP32", "-1, 512");
    let ensemble = tensors(Config::ensemble("twice"));
    let ensemble = ensemble.step("first", &[("x", "x")], &[("y", "between")]);
    let ensemble = ensemble.step("second", &[("x", "between")], &[("y", "y")]);
    let model = generated_model(&format!("scaling_{factor}"));
    let archive = ArchiveBuilder::new().file("twice/config.pbtxt", ensemble.text()).directory("twice/1");
    ["first", "second"]
        .into_iter()
        .fold(archive, |archive, name| archive.file(&format!("{name}/1/model.onnx"), &model))
        .gzip()
}

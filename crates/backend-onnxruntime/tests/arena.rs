//! All sessions share one arena, and give back what they do not use. Alone in its file: it measures the process.

mod fixture;

use fixture::{completed, execute, floats, load, request, values};
use inference::{Device, LoadedModel};

const MIB: u64 = 1 << 20;
/// Rows whose input, output and intermediate tensors have about 40 MiB each.
const ROWS: usize = 20_000;

/// Bytes of memory that the process has for itself.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn run_large(model: &mut LoadedModel) {
    let response =
        execute(model, request(vec![floats("x", &[ROWS as i64, 512], &vec![1.5; ROWS * 512])])).expect("runs");
    assert_eq!(values(&response, "y")[ROWS * 512 - 1], 3.0);
}

#[test]
fn idle_models_hold_no_activations() {
    let artifact = completed("weights");
    let mut models: Vec<_> = (0..6).map(|_| load(&artifact)).collect();
    let before = resident();
    models.iter_mut().for_each(run_large);
    // What is kept for the next runs is bounded for all of them together, and the last run's outputs are gone.
    let kept = resident().saturating_sub(before);
    assert!(kept < 100 * MIB, "{kept} bytes are kept after six large runs");

    // What a model is said to take does not depend on what others did before.
    let bytes = load(&artifact).memory.get(Device::Host);
    assert_eq!(bytes, models[0].memory.get(Device::Host));
}

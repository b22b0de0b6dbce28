//! Models share one thread pool: a loaded model costs no thread of its own. Alone in its file, so that no other test of the
//! process starts threads meanwhile.

mod fixture;

use std::fs;
use std::num::NonZeroUsize;

use backend_onnxruntime::{OnnxRuntimeBackend, OnnxRuntimeConfig};
use fixture::{completed, config, execute, floats, request, values};
use inference::{Backend, Placement};

fn threads() -> usize {
    fs::read_dir("/proc/self/task").expect("Linux").count()
}

#[test]
fn loaded_models_add_no_threads() {
    let intra_op_threads = NonZeroUsize::new(5);
    let backend = OnnxRuntimeBackend::start(OnnxRuntimeConfig { intra_op_threads, ..config() }).expect("starts");
    // Every later start shares the pool, whatever it asks for.
    let artifact = completed("weights");
    let before = threads();
    // The test's own two, and the pool's.
    assert!((2 + 4..=2 + 5).contains(&before), "{before}");
    let mut models: Vec<_> = (0..20).map(|_| backend.load(&artifact, &Placement::on_host(3)).expect("loads")).collect();
    for model in &mut models {
        let response = execute(model, request(vec![floats("x", &[64, 512], &[1.0; 64 * 512])])).expect("runs");
        assert_eq!(values(&response, "y"), [2.0; 64 * 512]);
    }
    assert_eq!(threads(), before);
}

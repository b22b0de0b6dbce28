//! Models that ask for a GPU where there is none.

use e2e::{Config, FolderStore, Launch, Store, generated_model, spin_request};
use test_util::archive::ArchiveBuilder;

use crate::assert_has;

fn store() -> FolderStore {
    let config = Config::new("spin", "onnxruntime").input("rounds", "INT64", "1").output("done", "INT64", "1");
    let config = config.line("instance_group [ { kind: KIND_GPU } ]");
    let archive =
        ArchiveBuilder::new().file("config.pbtxt", config.text()).file("1/model.onnx", generated_model("spin"));
    let store = FolderStore::new();
    store.put("gpu.tar.gz", &archive.gzip());
    store
}

/// Hides the machine's GPUs, if it has some.
fn without_gpus(launch: Launch) -> Launch {
    launch.variable("CUDA_VISIBLE_DEVICES", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn they_run_on_the_cpu_with_one_warning_and_a_metric() {
    let store = store();
    let server = without_gpus(store.launch()).start().await;
    for _ in 0..3 {
        assert_eq!(server.invoke("gpu.tar.gz", &spin_request(7)).await.ok().numbers("done"), [7.0]);
    }
    assert_eq!(server.metrics().await.sum("panoply_gpu_fallbacks_total", &[]), 1.0);
    assert_eq!(server.log_lines_with(&["\"WARN\"", "GPU", "spin"]), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_refused_where_a_gpu_is_required() {
    let store = store();
    let server = without_gpus(store.launch()).flag("--require-gpu").start().await;
    let refused = server.invoke("gpu.tar.gz", &spin_request(7)).await;
    assert!([501, 503].contains(&refused.status), "{refused:?}");
    assert_has(&refused.error(), &["spin", "GPU", "--require-gpu"]);
    server.stop().await;
}

//! Weights that stay in the disk cache's files: more models fit, and answers are right.

use e2e::{FolderStore, Store, infer, scaling_archive};
use serde_json::{Value, json};

const MODELS: usize = 10;

fn request(value: f64) -> Value {
    infer(&[json!({ "name": "x", "datatype": "FP32", "shape": [1, 512], "data": vec![value; 512] })])
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_mapped_models_fit_where_three_private_ones_do() {
    let store = FolderStore::new();
    let target = |factor: usize| format!("by-{factor}.tar.gz");
    (1..=MODELS).for_each(|factor| store.put(&target(factor), &scaling_archive(factor)));
    for (weights, fit) in [("private", false), ("mapped", true), ("auto", true)] {
        let launch = store.launch().option("--weights", weights).option("--model-memory", "4MiB");
        let server = launch.start().await;
        for factor in 1..=MODELS {
            let answer = server.invoke(&target(factor), &request(3.0)).await.ok();
            assert!(answer.numbers("y").iter().all(|number| *number == 3.0 * factor as f64), "{answer:?}");
        }
        let metrics = server.metrics().await;
        let resident = metrics.sum("panoply_resident_archives", &[]);
        assert_eq!(resident == MODELS as f64, fit, "{resident} of {MODELS} are in memory, {weights}");
        let mapped = metrics.sum("panoply_mapped_weights_bytes", &[]);
        assert_eq!(mapped, if fit { (MODELS << 20) as f64 } else { 0.0 }, "{weights}");
        server.stop().await;
    }
}

//! Statistics of models, as Triton's clients ask for them, and what becomes of them when a model leaves memory.

use e2e::{Answer, FolderStore, Server, Store, echo_named, pipeline_archive, python};
use serde_json::{Value, json};

use crate::ask_echo;

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_sees_every_figure_of_entry_and_composing_models() {
    let store = FolderStore::new();
    store.put("pipeline.tar.gz", &pipeline_archive());
    let server = store.launch().start().await;
    let output = python("triton_statistics.py", &[&server.address(), &server.grpc_address()]).await;
    assert_eq!(output.trim_end().lines().last(), Some("all right"), "{output}");
    server.stop().await;
}

async fn statistics(server: &Server, path: &str) -> Vec<Value> {
    let answer: Answer = server.get(path).await.ok();
    answer.json()["model_stats"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_outlive_eviction_and_show_what_is_in_memory() {
    let store = FolderStore::new();
    ["a", "b"].iter().for_each(|name| store.put(name, &echo_named(name, name)));
    // There is room for one identity model of 4 KiB.
    let server = store.launch().option("--model-memory", "6KiB").start().await;
    for target in ["a", "b", "a"] {
        ask_echo(&server, target, &[1.0]).await.ok();
    }
    let all = statistics(&server, "/v2/models/stats").await;
    let told: Vec<_> = all.iter().map(|model| (&model["name"], &model["inference_count"])).collect();
    assert_eq!(told, [(&json!("a"), &json!(2))], "b is not in memory; a goes on from where it was");
    let [b] = &statistics(&server, "/v2/models/b/stats").await[..] else { panic!("one model") };
    assert_eq!((&b["inference_count"], &b["memory_usage"]), (&json!(1), &json!([])));
    let again = ask_echo(&server, "b", &[1.0]).await.ok();
    assert_eq!(again.header("x-panoply-cache"), Some("disk"), "statistics loaded nothing");
    let [b] = &statistics(&server, "/v2/models/b/versions/1/stats").await[..] else { panic!("one model") };
    assert_eq!(b["inference_count"], json!(2));
    assert_eq!(b["memory_usage"], json!([{"type": "CPU", "id": 0, "byte_size": 4096}]));
    server.stop().await;
}

//! Triton's `generate` extension, as `curl` speaks it.

use std::fs;

use e2e::{Config, FolderStore, Store};
use serde_json::json;
use test_util::archive::ArchiveBuilder;

use crate::assert_has;

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_reads_plain_text() {
    let store = FolderStore::new();
    let archive = test_util::artifacts().join("demo-store/minilm.tar.gz");
    store.put("team/minilm.tar.gz", &fs::read(archive).expect("setup has made the demo archives"));
    let server = store.launch().start().await;
    let url = server.url("/v2/models/team/minilm.tar.gz/generate");
    let one = server.http().post(&url, &json!({ "TEXT": "A man is eating food.", "id": "r1" })).await.ok();
    let embedding = one.json()["EMBEDDING"].as_array().expect("a flat list").clone();
    assert_eq!((embedding.len(), one.cache()), (384, "store"));
    assert_eq!(
        (one.json()["model_name"].clone(), one.json()["id"].clone()),
        ("team/minilm.tar.gz".into(), "r1".into())
    );
    // As many texts as the list has, and the same embedding for the same text.
    let two = server.http().post(&url, &json!({ "TEXT": ["A man is eating food.", "Someone has a meal."] })).await.ok();
    let both = two.json()["EMBEDDING"].as_array().expect("a flat list").clone();
    assert_eq!((both.len(), two.cache()), (768, "memory"));
    let close = |(a, b): (&serde_json::Value, &serde_json::Value)| {
        (a.as_f64().expect("a number") - b.as_f64().expect("a number")).abs() < 1e-4
    };
    assert!(both.iter().zip(&embedding).all(close));

    let stream = server.http().post(&format!("{url}_stream"), &json!({ "TEXT": "A man is eating food." })).await.ok();
    assert_eq!(stream.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let text = stream.text();
    let event = text.strip_prefix("data: ").and_then(|text| text.strip_suffix("\n\n")).expect("one event");
    let event: serde_json::Value = serde_json::from_str(event).expect("JSON");
    assert_eq!(event["EMBEDDING"], json!(embedding));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_and_what_cannot_be() {
    let types = ["BOOL", "UINT8", "INT64", "FP16", "FP64"];
    let config = types.iter().fold(Config::new("types", "identity").line("max_batch_size: 4"), |config, name| {
        let (input, output) = (format!("IN_{name}"), format!("OUT_{name}"));
        config.input(&input, name, "2").output(&output, name, "2")
    });
    let config = config.input("IN_TEXT", "STRING", "1").output("OUT_TEXT", "STRING", "1");
    let store = FolderStore::new();
    store.put("types.tar.gz", &ArchiveBuilder::new().file("config.pbtxt", config.text()).gzip());
    let server = store.launch().start().await;
    let url = server.url("/v2/models/types.tar.gz/generate");
    let request = json!({
        "IN_BOOL": [true, false], "IN_UINT8": [0, 255], "IN_INT64": [[-1, 9_007_199_254_740_993i64]],
        "IN_FP16": [0.5, 2], "IN_FP64": [1e-300, 3], "parameters": { "IN_TEXT": "ü\n", "other": 1 },
    });
    let answer = server.http().post(&url, &request).await.ok().json();
    let expected = json!({
        "OUT_BOOL": [true, false], "OUT_UINT8": [0, 255], "OUT_INT64": [-1, 9_007_199_254_740_993i64],
        "OUT_FP16": [0.5, 2.0], "OUT_FP64": [1e-300, 3.0], "OUT_TEXT": "ü\n",
        "model_name": "types.tar.gz", "model_version": "1",
    });
    assert_eq!(answer, expected);
    for (change, parts) in [
        (json!({ "IN_UINT8": [0, 256] }), ["input 'IN_UINT8'", "256"]),
        (json!({ "IN_UINT8": [1, 2, 3] }), ["input 'IN_UINT8'", "3 elements do not fill the shape [-1,2]"]),
        (json!({ "IN_TEXT": null }), ["input 'IN_TEXT'", "string"]),
        (json!({ "nothing": [1] }), ["parameter 'nothing' has invalid type", "no input of this name"]),
    ] {
        let mut wrong = request.clone();
        wrong["parameters"] = json!({});
        wrong["IN_TEXT"] = json!("x");
        change.as_object().expect("an object").iter().for_each(|(name, value)| wrong[name] = value.clone());
        let refused = server.http().post(&url, &wrong).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert_has(&refused.error(), &parts);
    }
    let refused = server.http().post(&url, &json!({ "IN_TEXT": "x" })).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_has(&refused.error(), &["expected 6 inputs but got 1 inputs for model 'types'"]);
    server.stop().await;
}

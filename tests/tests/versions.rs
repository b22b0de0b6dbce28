//! Version directories, and which of them are served.

use e2e::{Config, FolderStore, Server, Store, generated_model, infer};
use serde_json::{Value, json};
use test_util::archive::ArchiveBuilder;

use crate::assert_has;

/// Version n multiplies by n.
fn versioned(policy: &str) -> Vec<u8> {
    let config = Config::new("scaling", "onnxruntime").line("max_batch_size: 4").line(policy);
    let config = config.input("x", "FP32", "512").output("y", "FP32", "512");
    let archive = ArchiveBuilder::new().file("scaling/config.pbtxt", config.text());
    let versions = [1, 3, 10];
    let with = |archive: ArchiveBuilder, version: &usize| {
        archive.file(&format!("scaling/{version}/model.onnx"), generated_model(&format!("scaling_{version}")))
    };
    versions.iter().fold(archive, with).gzip()
}

fn request() -> Value {
    infer(&[json!({ "name": "x", "datatype": "FP32", "shape": [1, 512], "data": vec![2.0; 512] })])
}

async fn answers(server: &Server, target: &str, path: &str, factor: f64) {
    let answer = server.http().post(&server.url(&format!("/v2/models/{target}{path}/infer")), &request()).await.ok();
    assert!(answer.numbers("y").iter().all(|number| *number == 2.0 * factor), "{target}{path}: {answer:?}");
    assert_eq!(answer.json()["model_version"], factor.to_string(), "{target}{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_decides_which_versions_are_served() {
    let store = FolderStore::new();
    let cases: [(&str, &str, &[usize]); 4] = [
        ("latest", "", &[10]),
        ("latest-two", "version_policy { latest { num_versions: 2 } }", &[3, 10]),
        ("all", "version_policy { all { } }", &[1, 3, 10]),
        ("specific", "version_policy { specific { versions: [ 1, 3 ] } }", &[1, 3]),
    ];
    let server = store.launch().start().await;
    for (target, policy, served) in cases {
        store.put(target, &versioned(policy));
        let newest = served[served.len() - 1] as f64;
        answers(&server, target, "", newest).await;
        let metadata = server.get(&format!("/v2/models/{target}")).await.ok().json();
        let versions: Vec<String> = served.iter().map(ToString::to_string).collect();
        assert_eq!(metadata["versions"], json!(versions), "{target}");
        for version in [1, 3, 10] {
            let path = format!("/versions/{version}");
            let ready = server.get(&format!("/v2/models/{target}{path}/ready")).await.status;
            if served.contains(&version) {
                answers(&server, target, &path, version as f64).await;
                assert_eq!(ready, 200, "{target}{path}");
            } else {
                let url = server.url(&format!("/v2/models/{target}{path}/infer"));
                let answer = server.http().post(&url, &request()).await;
                assert_eq!((answer.status, ready), (404, 400), "{target}{path}: {answer:?}");
                assert_has(&answer.error(), &[&version.to_string()]);
            }
        }
    }
    let bad = server.get("/v2/models/latest/versions/first").await;
    assert_eq!(bad.status, 400, "{bad:?}");
    assert_has(&bad.error(), &["first"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_asked_for_must_be_there() {
    let store = FolderStore::new();
    store.put("missing", &versioned("version_policy { specific { versions: [ 1, 2 ] } }"));
    let server = store.launch().start().await;
    let answer = server.invoke("missing", &request()).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_has(&answer.error(), &["scaling/config.pbtxt:", "2"]);
    server.stop().await;
}

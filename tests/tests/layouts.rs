//! Every layout of an archive: those that work, and what is said about those that do not.

use e2e::{Config, FolderStore, Store, fp32, infer, prepared_model};
use http::Method;
use test_util::archive::ArchiveBuilder;

use crate::{ask_echo, assert_has};

fn model(name: &str) -> String {
    Config::new(name, "identity").input("X", "FP32", "-1").output("Y", "FP32", "-1").text()
}

fn ensemble(name: &str, member: &str) -> String {
    let config = Config::ensemble(name).input("X", "FP32", "-1").output("Y", "FP32", "-1");
    config.step(member, &[("X", "X")], &[("Y", "Y")]).text()
}

/// Archives that answer, and the name of the model that does.
fn layouts() -> Vec<(&'static str, ArchiveBuilder, &'static str)> {
    let new = ArchiveBuilder::new;
    let unnamed = model("").replace("name: \"\"\n", "");
    let pair = |root: &str| {
        new()
            .directory(&format!("{root}pipeline/1/"))
            .file(&format!("{root}pipeline/config.pbtxt"), ensemble("pipeline", "inner"))
            .file(&format!("{root}inner/config.pbtxt"), model("inner"))
            .directory(&format!("{root}inner/1/"))
    };
    vec![
        ("config at the root", new().file("config.pbtxt", model("m")).directory("1"), "m"),
        ("the same, packed with `tar -C dir .`", new().directory("./").file("./config.pbtxt", model("m")), "m"),
        ("no name at the root", new().file("config.pbtxt", unnamed.clone()), "no name at the root"),
        ("one model directory", new().file("m/config.pbtxt", model("m")).directory("m/1"), "m"),
        ("no name in a directory", new().file("m/config.pbtxt", unnamed), "m"),
        ("a name that is not the directory's", new().file("dir/config.pbtxt", model("m")).directory("dir/1"), "m"),
        ("an ensemble and its model", pair(""), "pipeline"),
        ("the same with ./", pair("./"), "pipeline"),
        ("everything in one more folder", pair("repository/"), "pipeline"),
        ("one model in one more folder", new().file("top/m/config.pbtxt", model("m")), "m"),
        ("loose files beside it", pair("").file("README.md", "read me").file("notes/x.txt", "x"), "pipeline"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_layout_is_read() {
    let store = FolderStore::new();
    let server = store.launch().start().await;
    for (title, archive, entry) in layouts() {
        let target = format!("layouts/{title}.tar.gz").replace(['`', '/'], "-").replace("layouts-", "layouts/");
        store.put(&target, &archive.gzip());
        let answer = ask_echo(&server, &target, &[6.5]).await;
        assert_eq!(answer.status, 200, "{title}: {answer:?}");
        assert_eq!(answer.numbers("Y"), [6.5], "{title}");
        // The model can be named as well, within its archive.
        let url = server.url(&format!("/v2/models/{}/infer", percent(entry)));
        let named = server.http().invoke(&url, &target, &infer(&[fp32("X", &[7.5])])).await;
        assert_eq!((named.status, named.cache()), (200, "memory"), "{title}: {named:?}");
        assert_eq!((named.numbers("Y"), named.json()["model_name"].clone()), (vec![7.5], entry.into()), "{title}");
    }
    server.stop().await;
}

fn percent(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_onnx_model_needs_no_configuration() {
    let store = FolderStore::new();
    let onnx = prepared_model("add_sub");
    store.put("root.tar.gz", &ArchiveBuilder::new().file("1/model.onnx", &onnx).gzip());
    store.put("folder.tar.gz", &ArchiveBuilder::new().file("./m/1/model.onnx", &onnx).gzip());
    let server = store.launch().start().await;
    let row = |name: &str, data: [f32; 3]| serde_json::json!({ "name": name, "datatype": "FP32", "shape": [1, 3], "data": data });
    for target in ["root.tar.gz", "folder.tar.gz"] {
        let answer = server.invoke(target, &infer(&[row("a", [1.0, 2.0, 3.0]), row("b", [0.5, 0.5, 1.0])])).await.ok();
        assert_eq!(answer.numbers("sum"), [1.5, 2.5, 4.0], "{target}");
        assert_eq!(answer.numbers("difference"), [0.5, 1.5, 2.0], "{target}");
        // Names, types, shapes and the batch dimension come from the model.
        let config = server.get(&format!("/v2/models/{target}/config")).await.ok().json();
        assert_eq!(config["input"][0]["name"], "a", "{config}");
        assert_eq!(config["input"][0]["data_type"], "TYPE_FP32", "{config}");
        assert!(config["max_batch_size"].as_i64().is_some_and(|size| size > 0), "{config}");
        let metadata = server.get(&format!("/v2/models/{target}")).await.ok().json();
        assert_eq!(metadata["inputs"][1]["shape"], serde_json::json!([-1, 3]), "{metadata}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_layouts_are_refused_with_what_was_found_and_what_would_work() {
    let new = ArchiveBuilder::new;
    let cases = [
        ("letter", new().file("letter.txt", "dear"), vec!["letter.txt", "layouts that work", "<model>/config.pbtxt"]),
        ("deep", new().file("a/b/c/d/config.pbtxt", model("m")), vec!["a/", "b/", "layouts that work"]),
        (
            "root-and-below",
            new().file("config.pbtxt", model("m")).file("n/config.pbtxt", model("n")),
            vec!["both the root and folders", "layouts that work"],
        ),
        (
            "two-models",
            new().file("a/config.pbtxt", model("a")).file("b/config.pbtxt", model("b")),
            vec!["not clear which", "`a`", "`b`"],
        ),
        (
            "wrong-name",
            new()
                .file("pipeline/config.pbtxt", ensemble("pipeline", "inner"))
                .file("inner/config.pbtxt", model("other")),
            vec!["inner/config.pbtxt:1:", "other"],
        ),
        (
            "member-missing",
            new().file("pipeline/config.pbtxt", ensemble("pipeline", "nobody")),
            vec!["nobody", "pipeline/config.pbtxt:"],
        ),
    ];
    let store = FolderStore::new();
    store.put("good", &e2e::echo());
    let server = store.launch().start().await;
    for (target, archive, parts) in cases {
        store.put(target, &archive.gzip());
        let answer = ask_echo(&server, target, &[1.0]).await;
        assert_eq!(answer.status, 400, "{target}: {answer:?}");
        assert_has(&answer.error(), &parts);
        assert_eq!(ask_echo(&server, target, &[1.0]).await.error(), answer.error(), "{target}");
        ask_echo(&server, "good", &[1.0]).await.ok();
    }
    // The index tells why they are not ready.
    let index = server.http().send(Method::POST, &server.url("/v2/repository/index"), &[], "").await.ok().json();
    let letter = index.as_array().and_then(|lines| lines.iter().find(|line| line["name"] == "letter"));
    let letter = letter.expect("a model that failed is listed");
    assert_eq!(letter["state"], "UNAVAILABLE", "{index}");
    assert_has(letter["reason"].as_str().unwrap_or_default(), &["letter.txt"]);
    server.stop().await;
}

//! `/invocations`, the target model's header on every path, and models of start-up repositories.

use std::fs;
use std::path::Path;

use e2e::{Config, FolderStore, Launch, S3Store, Store, echo, fp32, infer};
use tempfile::TempDir;
use test_util::archive::ArchiveBuilder;

use crate::assert_has;

fn request() -> serde_json::Value {
    infer(&[fp32("X", &[2.5])])
}

fn model(name: &str, output: &str) -> String {
    Config::new(name, "identity").input("X", "FP32", "-1").output(output, "FP32", "-1").text()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_routes_to_an_archive_on_every_path() {
    let store = FolderStore::new();
    store.put("team/a.tar.gz", &echo());
    let inner = Config::ensemble("outer").input("X", "FP32", "-1").output("Y", "FP32", "-1");
    let inner = inner.step("inner", &[("X", "X")], &[("INNER", "Y")]);
    let pair = ArchiveBuilder::new()
        .file("outer/config.pbtxt", inner.text())
        .file("inner/config.pbtxt", model("inner", "INNER"))
        .gzip();
    store.put("team/pair.tar.gz", &pair);
    let server = store.launch().start().await;
    // (path, target, the name in the answer, the output)
    let cases = [
        ("/invocations", "team/a.tar.gz", "team/a.tar.gz", "Y"),
        ("/v2/models/team%2Fa.tar.gz/infer", "team/a.tar.gz", "team/a.tar.gz", "Y"),
        ("/v2/models/team/a.tar.gz/versions/1/infer", "team/a.tar.gz", "team/a.tar.gz", "Y"),
        ("/v2/models/echo/infer", "team/a.tar.gz", "echo", "Y"),
        ("/v2/models/echo/versions/1/infer", "team/a.tar.gz", "echo", "Y"),
        ("/invocations", "team/pair.tar.gz", "team/pair.tar.gz", "Y"),
        ("/v2/models/outer/infer", "team/pair.tar.gz", "outer", "Y"),
        ("/v2/models/inner/infer", "team/pair.tar.gz", "inner", "INNER"),
        ("/endpoints/any/invocations", "team/pair.tar.gz", "team/pair.tar.gz", "Y"),
    ];
    for (path, target, name, output) in cases {
        let answer = server.http().invoke(&server.url(path), target, &request()).await.ok();
        assert_eq!(answer.json()["model_name"], name, "{path} {target}");
        assert_eq!(answer.numbers(output), [2.5], "{path} {target}");
        assert!(["store", "memory"].contains(&answer.cache()), "{path} {target}: {answer:?}");
    }
    let unknown = server.http().invoke(&server.url("/v2/models/ghost/infer"), "team/pair.tar.gz", &request()).await;
    assert_eq!(unknown.status, 404, "{unknown:?}");
    assert_has(&unknown.error(), &["ghost", "team/pair.tar.gz"]);
    for (target, status) in
        [("../a.tar.gz", 400), ("/a.tar.gz", 400), ("team//a.tar.gz", 400), ("team", 404), ("a", 404)]
    {
        let answer = server.http().invoke(&server.url("/invocations"), target, &request()).await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        assert_has(&answer.error(), &[target]);
    }
    let nameless = server.http().post(&server.url("/invocations"), &request()).await;
    assert_eq!(nameless.status, 400, "{nameless:?}");
    assert_has(&nameless.error(), &["X-Amzn-SageMaker-Target-Model"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_may_hold_any_characters() {
    for store in [Box::new(FolderStore::new()) as Box<dyn Store>, Box::new(S3Store::start().await)] {
        let server = store.launch().start().await;
        for key in ["ü/模型 1.tar.gz", "a b+c&d=e?f#g%20h.tar.gz", "no-suffix", "dots.in..name.tar.gz"] {
            store.put(key, &echo());
            let escaped = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC);
            let url = server.url(&format!("/v2/models/{escaped}/infer"));
            let answer = server.http().post(&url, &request()).await.ok();
            assert_eq!((answer.json()["model_name"].clone(), answer.cache()), (key.into(), "store"));
            let url = server.url("/invocations");
            let answer = server.http().invoke(&url, key, &request()).await.ok();
            assert_eq!((answer.json()["model_name"].clone(), answer.cache()), (key.into(), "memory"));
        }
        server.stop().await;
    }
}

fn write_model(repository: &Path, name: &str, config: &str) {
    fs::create_dir_all(repository.join(name).join("1")).expect("a folder");
    fs::write(repository.join(name).join("config.pbtxt"), config).expect("a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn start_up_repositories_are_served_by_name() {
    let (first, second, store) =
        (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"), FolderStore::new());
    write_model(first.path(), "one", &model("one", "FROM_ONE"));
    store.put("a.tar.gz", &echo());
    let launch = store.launch().flag(&format!("--model-repository={}", first.path().display()));
    let server = launch.start().await;
    // The only model needs no name.
    let answer = server.http().post(&server.url("/invocations"), &request()).await.ok();
    assert_eq!((answer.json()["model_name"].clone(), answer.numbers("FROM_ONE")), ("one".into(), vec![2.5]));
    assert_eq!(answer.cache(), "(no header)", "only target models have a tier");
    server.stop().await;

    write_model(second.path(), "two", &model("two", "FROM_TWO"));
    let server = launch.flag(&format!("--model-repository={}", second.path().display())).start().await;
    for (name, output) in [("one", "FROM_ONE"), ("two", "FROM_TWO"), ("a.tar.gz", "Y")] {
        let url = server.url(&format!("/v2/models/{name}/infer"));
        assert_eq!(server.http().post(&url, &request()).await.ok().numbers(output), [2.5], "{name}");
    }
    let nameless = server.http().post(&server.url("/invocations"), &request()).await;
    assert_eq!(nameless.status, 400, "{nameless:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_start_up_repository_ends_the_start_with_all_that_is_wrong() {
    let repository = TempDir::new().expect("a folder");
    write_model(repository.path(), "good", &model("good", "Y"));
    write_model(repository.path(), "typo", "max_batchsize: 1");
    write_model(repository.path(), "python", "backend: \"python\" max_batchsize: 8");
    let launch = Launch::new().flag(&format!("--model-repository={}", repository.path().display()));
    let (code, log) = launch.run().await;
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {log}");
    assert_has(&log, &["typo/config.pbtxt:1:1", "python/config.pbtxt:1:19", "max_batch_size"]);
}

//! Compressed bodies, with clients that compress.

use e2e::{Config, FolderStore, Store, echo, python};
use http::Method;
use test_util::archive::ArchiveBuilder;

use crate::assert_has;

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_compresses_both_ways() {
    let store = FolderStore::new();
    store.put("team/echo.tar.gz", &echo());
    let text = Config::new("text", "identity").input("X", "STRING", "-1").output("Y", "STRING", "-1");
    store.put("text.tar.gz", &ArchiveBuilder::new().file("config.pbtxt", text.text()).gzip());
    let server = store.launch().start().await;
    let output = python("triton_compression.py", &[&server.address()]).await;
    assert_eq!(output.trim_end(), "all right");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused_and_the_server_goes_on() {
    let store = FolderStore::new();
    store.put("echo.tar.gz", &echo());
    let server = store.launch().option("--max-request-size", "4MiB").start().await;
    // A small body, 128 MiB once inflated.
    let bomb = test_util::archive::gzip(&vec![0; 128 << 20]);
    assert!(bomb.len() < 4 << 20);
    for path in ["/v2/models/echo.tar.gz/infer", "/invocations"] {
        let headers = [("content-encoding", "gzip"), ("x-amzn-sagemaker-target-model", "echo.tar.gz")];
        let before = server.peak_memory();
        let refused = server.http().send(Method::POST, &server.url(path), &headers, bomb.clone()).await;
        assert_eq!(refused.status, 413, "{refused:?}");
        assert_has(&refused.error(), &["4194304 bytes that --max-request-size allows"]);
        assert!(server.peak_memory() < before + (32 << 20), "{before} → {}", server.peak_memory());
    }
    let headers = [("content-encoding", "zstd")];
    let refused = server.http().send(Method::POST, &server.url("/invocations"), &headers, "x").await;
    assert_eq!((refused.status, refused.header("accept-encoding")), (415, Some("gzip, deflate")));
    server.stop().await;
}

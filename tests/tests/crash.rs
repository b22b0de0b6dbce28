//! `kill -9` at a bad moment leaves nothing half-visible.

use std::path::Path;

use e2e::{Gate, Http, S3Store, Store, echo, fp32, infer, until};

use crate::ask_echo;
use crate::single_flight::big_echo;

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_of_a_download_starts_with_a_whole_cache() {
    let store = S3Store::start().await;
    store.put("whole.tar.gz", &echo());
    store.put("half.tar.gz", &big_echo("half"));
    let gate = Gate::closed(store.server.endpoint(), 64 << 10).await;
    let launch = store.launch_through(gate.endpoint()).option("--restore-resident", "false");
    let server = launch.start().await;
    ask_echo(&server, "whole.tar.gz", &[1.0]).await.ok();
    let url = server.url("/invocations");
    let cut = tokio::spawn(async move {
        let headers = [("x-amzn-sagemaker-target-model", "half.tar.gz")];
        let body = infer(&[fp32("X", &[1.0])]).to_string();
        Http::new().try_send(http::Method::POST, &url, &headers, body).await
    });
    gate.holds().await;
    let staging = launch.disk_cache().join("staging");
    until("the archive is being unpacked", async || (entries(&staging) == 1).then_some(())).await;
    server.kill().await;
    assert!(cut.await.expect("the request runs").is_err());
    assert_eq!(entries(&staging), 1, "a killed server cleans nothing up");

    gate.open();
    let server = launch.start().await;
    assert_eq!(entries(&staging), 0, "what a crash left behind is removed");
    let whole = ask_echo(&server, "whole.tar.gz", &[1.0]).await.ok();
    assert_eq!(whole.cache(), "disk", "what was complete is kept");
    let half = ask_echo(&server, "half.tar.gz", &[2.0]).await.ok();
    assert_eq!((half.cache(), half.numbers("Y")), ("store", vec![2.0]));
    assert_eq!((store.gets("whole.tar.gz"), store.gets("half.tar.gz")), (1, 2));
    server.stop().await;
}

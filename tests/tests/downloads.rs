//! Downloads in parts: bounded, in order, of one version; and what is not asked of the store at all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::{Config, FaultProxy, Launch, S3Store, Server, Store, echo, fp32, infer, padding, until};
use futures::future::join_all;
use test_util::archive::ArchiveBuilder;

use crate::{ask_echo, assert_has};

const PART: usize = 64 << 10;

/// An archive of about so many bytes.
pub(crate) fn echo_of(bytes: usize) -> Vec<u8> {
    let config = Config::new("m", "identity").input("X", "FP32", "-1").output("Y", "FP32", "-1");
    ArchiveBuilder::new().file("m/config.pbtxt", config.text()).file("m/1/weights", padding(bytes)).gzip()
}

/// With small parts.
pub(crate) fn in_parts(launch: Launch) -> Launch {
    launch.option("--download-part-size", &format!("{PART}B")).option("--download-parts", "4")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_comes_in_parts_of_one_version() {
    let store = Arc::new(S3Store::start().await);
    let (old, new) = (echo_of(8 * PART), echo_of(6 * PART));
    store.put("a", &old);
    // The archive is replaced when the third of its parts is asked for.
    let replaced = store.clone();
    let newer = new.clone();
    let proxy = FaultProxy::start(store.server.endpoint(), move |asked| {
        if asked.method == "GET" && asked.earlier == 2 {
            replaced.put("a", &newer);
        }
        None
    })
    .await;
    let launch = in_parts(store.launch_through(proxy.endpoint()));
    let server = launch.start().await;
    assert_eq!(ask_echo(&server, "a", &[1.0]).await.ok().numbers("Y"), [1.0]);
    let ranges: Vec<_> = proxy.asked().into_iter().filter_map(|asked| asked.range).collect();
    let last = format!("bytes={}-{}", new.len() / PART * PART, new.len() - 1);
    assert!(ranges.contains(&"bytes=0-65535".to_owned()) && ranges.contains(&last), "{ranges:?}");
    assert_eq!(store.heads("a"), 2, "once for each version");
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("panoply_downloads_total", &[]), 1.0);
    for gauge in
        ["panoply_download_parts_in_flight", "panoply_downloads_in_flight", "panoply_download_waiting_archives"]
    {
        assert_eq!(metrics.sum(gauge, &[]), 0.0, "{gauge}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bandwidth_of_all_downloads_is_bounded() {
    let store = S3Store::start().await;
    for number in 0..4 {
        store.put(&format!("{number}"), &echo_of(512 << 10));
    }
    let server = in_parts(store.launch()).option("--download-bandwidth", "1MiB").start().await;
    let began = Instant::now();
    for answer in join_all((0..4).map(|number| ask(&server, format!("{number}")))).await {
        assert_eq!(answer, 200);
    }
    // Two MiB, less what a pause had saved up.
    assert!(began.elapsed() >= Duration::from_millis(1800), "{:?}", began.elapsed());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_waits_for_goes_before_loads_by_name() {
    let store = S3Store::start().await;
    let proxy = FaultProxy::start(store.server.endpoint(), |_| None).await;
    for (target, bytes) in [("first", 4 << 20), ("by-name", 1 << 10), ("asked", 1 << 10)] {
        store.put(target, &echo_of(bytes));
    }
    store.server.set_chunk_delay(Duration::from_millis(250));
    let server = store.launch_through(proxy.endpoint()).option("--download-concurrency", "1").start().await;
    let waiting = async |number: f64| {
        until("others wait", async || {
            (server.metrics().await.sum("panoply_download_waiting_archives", &[]) == number).then_some(())
        })
        .await;
    };
    let first = ask(&server, "first".to_owned());
    let by_name = async {
        until("the first has begun", async || (store.gets("first") == 1).then_some(())).await;
        let url = server.url("/v2/repository/models/by-name/load");
        server.http().send(http::Method::POST, &url, &[], "").await.status
    };
    let asked = async {
        waiting(1.0).await;
        ask(&server, "asked".to_owned()).await
    };
    let release = async {
        waiting(2.0).await;
        store.server.set_chunk_delay(Duration::ZERO);
    };
    assert_eq!(futures::join!(first, by_name, asked, release), (200, 200, 200, ()));
    let gets = proxy.asked().into_iter().filter(|asked| asked.method == "GET");
    let keys: Vec<_> = gets.filter_map(|asked| Some(asked.path.rsplit_once('/')?.1.to_owned())).collect();
    assert_eq!(keys, ["first", "asked", "by-name"]);
    server.stop().await;
}

async fn ask(server: &Server, target: String) -> u16 {
    server.invoke(&target, &infer(&[fp32("X", &[1.0])])).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_names_is_no_flood_of_questions() {
    const NAMES: usize = 20;
    let store = S3Store::start().await;
    store.put("there", &echo());
    let server = store.launch().option("--missing-key-ttl", "1h").start().await;
    let name = |number: usize| format!("none-{}", number % NAMES);
    for round in 0..4 {
        for status in join_all((0..100).map(|number| ask(&server, name(number)))).await {
            assert_eq!(status, 404, "round {round}");
        }
    }
    for number in 0..NAMES {
        assert_eq!(store.heads(&name(number)), 1);
    }
    let again = ask_echo(&server, "none-1", &[1.0]).await;
    assert_has(&again.error(), &["none-1"]);
    assert_has(&again.error(), &store.place());
    // Requests for one name at the same time share an answer; rounds do not.
    let hits = server.metrics().await.sum("panoply_missing_key_hits_total", &[]);
    assert!(hits >= 3.0 * NAMES as f64, "{hits}");
    ask_echo(&server, "there", &[1.0]).await.ok();

    // Asked for by name, the store is asked, and what was believed is forgotten.
    store.put("none-1", &echo());
    assert_eq!(ask(&server, "none-1".to_owned()).await, 404);
    let load = server.url("/v2/repository/models/none-1/load");
    server.http().send(http::Method::POST, &load, &[], "").await.ok();
    ask_echo(&server, "none-1", &[1.0]).await.ok();
    server.stop().await;

    let server = store.launch().option("--missing-key-ttl", "100ms").start().await;
    assert_eq!(ask(&server, "late".to_owned()).await, 404);
    store.put("late", &echo());
    until("it is asked for again", async || (ask(&server, "late".to_owned()).await == 200).then_some(())).await;
    server.stop().await;
}

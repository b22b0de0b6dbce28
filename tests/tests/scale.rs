//! Many archives: answers are right, and memory, threads, start and index do not depend on how many there are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::{Config, FolderStore, Gate, Http, S3Store, Server, Store, adding_archive, effort, fp32, infer, padding};
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_util::archive::ArchiveBuilder;
use test_util::dice::{Dice, Zipf};

use crate::ask_echo;

/// How many models the budget holds.
const RESIDENT: usize = 300;
/// What the server accounts for a model of [`adding_archive`], at least.
const MODEL: u64 = 128 << 10;
/// What the server may take beside the budget of its models: its code and the runtimes', requests, the books of what it
/// knows. Unoptimised code has more of it.
const OVERHEAD: u64 = 256 << 20;
/// What threads there may be beside those of the machine's processors; far fewer than models.
const THREADS: u64 = 64;
const CLIENTS: u64 = 8;

fn target(number: usize) -> String {
    format!("team-{}/model-{number}.tar.gz", number % 7)
}

/// A server whose disk cache is in memory where that can be: thousands of archives would each wait for the disk.
async fn start(store: &impl Store, disk: &TempDir) -> Server {
    let budget = format!("{}B", RESIDENT as u64 * MODEL * 11 / 10);
    let launch = store.launch().option("--disk-cache", &disk.path().display().to_string());
    launch.option("--model-memory", &budget).start().await
}

fn disk() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a temporary folder")
}

fn request(value: u32) -> Value {
    infer(&[json!({ "name": "x", "datatype": "FP32", "shape": [1, 1], "data": [value] })])
}

async fn ask(http: &Http, url: &str, number: usize, value: u32) {
    let answer = http.invoke(url, &target(number), &request(value)).await.ok();
    assert_eq!(answer.numbers("y"), [f64::from(value) + number as f64], "of {}", target(number));
    assert_eq!(answer.json()["model_name"], target(number));
}

/// Clients that ask for models by Zipf's law; which ones were asked for.
async fn ask_by_zipf(server: &Server, models: usize, requests: usize) -> usize {
    let asked = Arc::new(AtomicUsize::new(0));
    let zipf = Arc::new(Zipf::new(models, 1.0));
    let clients = (0..CLIENTS).map(|client| {
        let (url, asked, zipf) = (server.url("/invocations"), asked.clone(), zipf.clone());
        tokio::spawn(async move {
            let (http, mut dice, mut seen) = (Http::new(), Dice::new(client), BTreeSet::new());
            while asked.fetch_add(1, Ordering::Relaxed) < requests {
                let number = zipf.draw(&mut dice);
                seen.insert(number);
                ask(&http, &url, number, dice.below(1000) as u32).await;
            }
            seen
        })
    });
    let seen = join_all(clients).await.into_iter().map(|client| client.expect("every answer is right"));
    seen.reduce(|all, seen| &all | &seen).expect("there are clients").len()
}

/// The most threads and models that a server had, looked at again and again.
#[derive(Default)]
struct Peaks {
    threads: AtomicU64,
    models: AtomicU64,
    done: AtomicBool,
}

async fn watch(server: Arc<Server>, peaks: Arc<Peaks>) {
    let budget = (RESIDENT as u64 * MODEL * 11 / 10) as f64;
    while !peaks.done.load(Ordering::Relaxed) {
        let metrics = server.metrics().await;
        let bytes = metrics.sum("panoply_resident_bytes", &[]);
        assert!(bytes <= budget, "{bytes} bytes of {budget} are used");
        peaks.models.fetch_max(metrics.sum("panoply_resident_archives", &[]) as u64, Ordering::Relaxed);
        peaks.threads.fetch_max(server.threads(), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zipf_load_over_all_archives_of_a_large_store_is_answered_right_and_within_bounds() {
    let (models, requests) = (effort(1000, 10_000), effort(3000, 60_000));
    let (store, disk) = (FolderStore::new(), disk());
    (0..models).for_each(|number| store.put(&target(number), &adding_archive(number as u32)));
    let server = Arc::new(start(&store, &disk).await);
    let idle = server.memory();
    let peaks = Arc::new(Peaks::default());
    let watching = tokio::spawn(watch(server.clone(), peaks.clone()));
    let began = Instant::now();
    let seen = ask_by_zipf(&server, models, requests).await;
    let elapsed = began.elapsed().as_secs_f64();
    peaks.done.store(true, Ordering::Relaxed);
    watching.await.expect("the budget is kept");

    let (threads, resident) = (peaks.threads.load(Ordering::Relaxed), peaks.models.load(Ordering::Relaxed));
    let (peak, metrics) = (server.peak_memory(), server.metrics().await);
    let loads = metrics.sum("panoply_model_loads_total", &[]);
    println!(
        "{models} archives, {requests} requests for {seen} of them in {elapsed:.1} s: {loads} loads, {resident} resident at \
         most, {threads} threads, {} MiB idle, {} MiB at most",
        idle >> 20,
        peak >> 20
    );
    assert!(resident >= RESIDENT as u64 * 9 / 10, "only {resident} models were ever resident");
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    assert!(threads <= THREADS + 2 * processors, "{threads} threads for {resident} models");
    let budget = RESIDENT as u64 * MODEL * 11 / 10;
    assert!(peak <= budget + OVERHEAD, "{peak} bytes for a budget of {budget}");
    assert!(loads - metrics.sum("panoply_evictions_total", &[("tier", "memory")]) <= resident as f64);
    Arc::into_inner(server).expect("the clients are gone").stop().await;

    // A start with all of them on disk.
    let began = Instant::now();
    let server = start(&store, &disk).await;
    println!("a start with {seen} archives on disk takes {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    let (http, url) = (Http::new(), server.url("/invocations"));
    ask(&http, &url, 0, 7).await;
    server.stop().await;
}

/// What is in the store is none of its business: not one call is made.
#[tokio::test(flavor = "multi_thread")]
async fn start_and_index_do_not_depend_on_how_much_the_store_has() {
    let (store, disk) = (S3Store::start().await, disk());
    (0..effort(1000, 10_000)).for_each(|number| store.put(&target(number), &adding_archive(number as u32)));
    let server = start(&store, &disk).await;
    let index =
        async || server.http().send(Method::POST, &server.url("/v2/repository/index"), &[], "").await.ok().json();
    assert_eq!(index().await, json!([]), "what nobody has asked for is not known");
    assert_eq!(store.server.requests(), 0, "neither the start nor the index asks the store");
    ask(server.http(), &server.url("/invocations"), 5, 1).await;
    assert_eq!(index().await.as_array().map(Vec::len), Some(1));
    assert_eq!(store.server.requests(), 2, "HEAD and GET of the one that was asked for");
    server.stop().await;
}

/// An archive that a gate holds back in the middle.
fn cold_archive(number: usize) -> Vec<u8> {
    let name = format!("cold-{number}");
    let config = Config::new(&name, "identity").input("X", "FP32", "-1").output(&format!("Y{number}"), "FP32", "-1");
    ArchiveBuilder::new()
        .file(&format!("{name}/config.pbtxt"), config.text())
        .file(&format!("{name}/1/padding.bin"), padding(100 << 10))
        .gzip()
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_cold_models_at_once_hold_up_no_hot_one() {
    const COLD: usize = 64;
    let store = S3Store::start().await;
    (0..COLD).for_each(|number| store.put(&format!("cold-{number}"), &cold_archive(number)));
    (0..4).for_each(|number| store.put(&target(number), &adding_archive(number as u32)));
    let gate = Gate::closed(store.server.endpoint(), 64 << 10).await;
    let server = Arc::new(store.launch_through(gate.endpoint()).start().await);
    let (http, url) = (Http::new(), server.url("/invocations"));
    for number in 0..4 {
        ask(&http, &url, number, 1).await;
    }
    let cold = (0..COLD).map(|number| {
        let url = url.clone();
        tokio::spawn(async move {
            let body = infer(&[fp32("X", &[0.25])]);
            let answer = Http::new().invoke(&url, &format!("cold-{number}"), &body).await.ok();
            assert_eq!((answer.numbers(&format!("Y{number}")), answer.cache()), (vec![0.25], "store"));
        })
    });
    let cold: Vec<_> = cold.collect();
    e2e::until("64 requests wait for their loads", async || {
        (server.metrics().await.sum("panoply_load_waiting_requests", &[]) == COLD as f64).then_some(())
    })
    .await;
    // While none of the cold ones can go on, and while all of them do.
    for value in 0..100 {
        ask(&http, &url, value as usize % 4, value).await;
    }
    gate.open();
    let mut hot = 0;
    while cold.iter().any(|request| !request.is_finished()) {
        ask(&http, &url, hot as usize % 4, hot).await;
        hot += 1;
    }
    for request in cold {
        request.await.expect("every answer is right");
    }
    println!("{hot} hot requests were answered while {COLD} models were loaded");
    assert!(hot > 0);
    assert_eq!(server.metrics().await.sum("panoply_model_loads_total", &[]), COLD as f64 + 4.0);
    assert_eq!(ask_echo(&server, "cold-63", &[3.0]).await.ok().cache(), "memory");
}

//! Models that come and go leave the server's memory where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::{FolderStore, Server, Store, effort, infer, scaling_archive, until};
use futures::future::join_all;
use serde_json::{Value, json};
use test_util::dice::Dice;

const MIB: u64 = 1 << 20;
/// How much more memory may be held after hundreds of loads than after the first: the allocator's own disorder. What a
/// load loses for good adds up to more, be it only some tens of kilobytes each time.
const DISORDER: u64 = 8 * MIB;

fn target(number: usize) -> String {
    format!("model-{number}.tar.gz")
}

/// `target(n)` multiplies by `factor(n)`.
fn factor(number: usize) -> usize {
    number % 10 + 1
}

fn store(models: usize) -> FolderStore {
    let store = FolderStore::new();
    (0..models).for_each(|number| store.put(&target(number), &scaling_archive(factor(number))));
    store
}

fn request(value: usize) -> Value {
    infer(&[json!({ "name": "x", "datatype": "FP32", "shape": [1, 512], "data": vec![value; 512] })])
}

async fn ask(server: &Server, number: usize, value: usize) {
    let answer = server.invoke(&target(number), &request(value)).await.ok();
    let expected = (factor(number) * value) as f64;
    assert!(answer.numbers("y").iter().all(|number| *number == expected), "{expected}: {answer:?}");
}

async fn unload(server: &Server, number: usize) {
    let url = server.url(&format!("/v2/repository/models/{}/unload", target(number)));
    server.http().post(&url, &json!({})).await.ok();
}

async fn until_all_are_unloaded(server: &Server) {
    until("all models are unloaded", async || {
        let metrics = server.metrics().await;
        let left = metrics.sum("panoply_resident_bytes", &[]) + metrics.sum("panoply_resident_archives", &[]);
        (left == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_loads_and_unloads_of_one_model_leave_memory_where_it_was() {
    let store = store(1);
    let server = store.launch().start().await;
    let mut seen = Vec::new();
    for cycle in 0..200 {
        ask(&server, 0, cycle).await;
        unload(&server, 0).await;
        until_all_are_unloaded(&server).await;
        seen.push(server.memory());
    }
    // What is held goes up and down by megabytes; the least of it tells.
    let least = |cycles: &[u64]| cycles.iter().copied().min().expect("there are some");
    let (settled, memory) = (least(&seen[20..60]), least(&seen[160..]));
    println!("cycles 20 to 60: {} KiB, 160 to 200: {} KiB", settled >> 10, memory >> 10);
    assert!(memory < settled + DISORDER, "{settled} bytes have become {memory}");
    assert_eq!(server.metrics().await.sum("panoply_model_loads_total", &[]), 200.0);
    server.stop().await;
}

/// Clients that ask for models at random, of which a few fit, until so many loads have been made.
async fn load_at_random(server: &Arc<Server>, models: usize, loads: usize, seed: u64) {
    let asked = Arc::new(AtomicUsize::new(0));
    let clients = (0..4).map(|client| {
        let (server, asked) = (server.clone(), asked.clone());
        tokio::spawn(async move {
            let mut dice = Dice::new(seed * 4 + client);
            while asked.fetch_add(1, Ordering::Relaxed) < loads {
                ask(&server, dice.below(models), dice.below(1000)).await;
            }
        })
    });
    join_all(clients).await.into_iter().for_each(|client| client.expect("every answer is right"));
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_of_random_models_leave_memory_where_it_was() {
    const MODELS: usize = 40;
    let store = store(MODELS);
    // Some four of them fit.
    let server = Arc::new(store.launch().option("--model-memory", "6MiB").start().await);
    let requests = effort(400, 11_000);
    load_at_random(&server, MODELS, 200, 1).await;
    let settled = server.memory();
    load_at_random(&server, MODELS, requests, 2).await;
    let (memory, metrics) = (server.memory(), server.metrics().await);
    let loads = metrics.sum("panoply_model_loads_total", &[]);
    println!("{loads} loads; after the first 200 requests {} KiB, at the end {} KiB", settled >> 10, memory >> 10);
    assert!(loads > 0.8 * requests as f64, "{loads} loads");
    // What several loads at a time hold goes further up and down than one's.
    assert!(memory < settled + 2 * DISORDER, "{settled} bytes have become {memory} after {loads} loads");
    Arc::into_inner(server).expect("the clients are gone").stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_unload_frees_is_given_back_to_the_system() {
    const MODELS: usize = 30;
    let store = store(MODELS);
    let server = store.launch().start().await;
    let load_all = async || {
        for number in 0..MODELS {
            ask(&server, number, 1).await;
        }
        server.memory()
    };
    let unload_all = async || {
        for number in 0..MODELS {
            unload(&server, number).await;
        }
        until_all_are_unloaded(&server).await;
        server.memory()
    };
    // The first time, what is mapped once and stays is mapped: code, the runtimes' own.
    load_all().await;
    let empty = unload_all().await;
    let full = load_all().await;
    let emptied = unload_all().await;
    println!("empty {} KiB, full {} KiB, emptied {} KiB", empty >> 10, full >> 10, emptied >> 10);
    // Each holds 1 MiB of weights.
    assert!(full > empty + MODELS as u64 * MIB, "{empty} bytes became only {full}");
    assert!(emptied < empty + DISORDER, "{empty} bytes, loaded {full}, unloaded {emptied}");
    server.stop().await;
}

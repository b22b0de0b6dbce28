//! Several GPUs: where models go, and who has to leave for them. The GPUs are made up, all else is real.

use std::sync::Arc;
use std::time::Duration;

use inference::{Device, ErrorKind, MemoryUsage, ModelControl, ModelKey, ModelState, TargetModel};

use crate::harness::{Harness, mark, model_config};
use crate::room::{eventually, ready};

const ANY_GPU: &str = "{ kind: KIND_GPU }";
const EITHER: &str = "{ kind: KIND_AUTO }";

/// A cache with room for so many bytes on the host, and for so many on each GPU.
fn harness(host: u64, gpus: &[u64]) -> Harness {
    Harness::new(host, |config| {
        config.gpus = (0..gpus.len() as u32).collect();
        for (ordinal, bytes) in gpus.iter().enumerate() {
            config.budget.add(Device::Gpu(ordinal as u32), *bytes);
        }
    })
}

/// Puts a model of so many bytes, for these instance groups.
fn put(harness: &Harness, target: &str, groups: &str, bytes: u64, parameters: &[(&str, &str)]) {
    let bytes = bytes.to_string();
    let mut all = vec![("estimate", bytes.as_str()), ("actual", bytes.as_str())];
    all.extend(parameters);
    harness.put_config(target, &format!("{}instance_group [ {groups} ]\n", model_config(&all)));
}

/// Where a model in memory is, and what it takes there.
fn memory(harness: &Harness, target: &str) -> MemoryUsage {
    let key = ModelKey::of_target(TargetModel::new(target).expect("valid"));
    harness.cache.statistics(&key).expect("it is in memory").remove(0).memory
}

fn devices(harness: &Harness, target: &str) -> Vec<Device> {
    memory(harness, target).iter().map(|(device, _)| device).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_for_a_gpu_go_where_there_is_room() {
    let harness = harness(100, &[20, 30]);
    for target in ["a", "b", "c", "d", "e"] {
        put(&harness, target, ANY_GPU, 10, &[]);
        harness.mark(target).await.expect("there is room");
    }
    let on_second = ["a", "b", "c", "d", "e"].iter().filter(|target| devices(&harness, target) == [Device::Gpu(1)]);
    assert_eq!(on_second.count(), 3, "both are full, and nobody had to leave");
    put(&harness, "f", ANY_GPU, 10, &[]);
    harness.mark("f").await.expect("room is made");
    assert_eq!(ready(&harness).await.len(), 5, "one had to leave");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_has_its_instances_on_every_gpu_that_it_lists() {
    let harness = harness(100, &[20, 30, 20]);
    put(&harness, "listed", "{ kind: KIND_GPU count: 2 gpus: [ 0, 2 ] }, { kind: KIND_CPU }", 10, &[]);
    harness.mark("listed").await.expect("loads");
    let taken = memory(&harness, "listed");
    let taken = [Device::Host, Device::Gpu(0), Device::Gpu(1), Device::Gpu(2)].map(|device| taken.get(device));
    assert_eq!(taken, [10, 10, 0, 10]);
    put(&harness, "absent", "{ kind: KIND_GPU gpus: [ 3 ] }", 10, &[]);
    let error = harness.mark("absent").await.expect_err("there is no such GPU");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("names GPU 3"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_on_the_device_leaves_for_room_there() {
    let harness = harness(20, &[20, 20]);
    let (first, second, host) =
        ("{ kind: KIND_GPU gpus: [ 0 ] }", "{ kind: KIND_GPU gpus: [ 1 ] }", "{ kind: KIND_CPU }");
    for (target, group) in [("on-host", host), ("on-second", second), ("on-first", first), ("also-first", first)] {
        put(&harness, target, group, 10, &[]);
        harness.mark(target).await.expect("there is room");
    }
    put(&harness, "large", first, 15, &[]);
    harness.mark("large").await.expect("room is made");
    assert_eq!(ready(&harness).await, ["large", "on-host", "on-second"], "those used longest ago are elsewhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_on_either_evicts_nobody_while_the_host_has_room() {
    let harness = harness(10, &[10]);
    for (target, group) in [("gpu", ANY_GPU), ("auto", EITHER), ("last", ANY_GPU)] {
        put(&harness, target, group, 10, &[]);
    }
    harness.mark("gpu").await.expect("there is room");
    harness.mark("auto").await.expect("there is room on the host");
    assert_eq!(devices(&harness, "gpu"), [Device::Gpu(0)]);
    assert_eq!(devices(&harness, "auto"), [Device::Host]);
    harness.mark("last").await.expect("room is made");
    assert_eq!(ready(&harness).await, ["auto", "last"], "what must be on the GPU takes its turn there");
    harness.mark("gpu").await.expect("room is made again");
    assert_eq!(ready(&harness).await, ["auto", "gpu"]);
}

/// Whoever waits for room takes that of the GPU on which some becomes free first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_waits_goes_where_room_comes_first() {
    let harness = Arc::new(harness(100, &[10, 10]));
    let (mut gates, mut busy) = (Vec::new(), Vec::new());
    for target in ["busy-0", "busy-1"] {
        gates.push(harness.backend.gate(target));
        put(&harness, target, ANY_GPU, 10, &[("run_gate", target)]);
        let cache = harness.cache.clone();
        busy.push(tokio::spawn(async move { mark(&cache, target).await }));
    }
    eventually("both run", async || harness.arrivals() == 2).await;
    put(&harness, "next", ANY_GPU, 10, &[]);
    let cache = harness.cache.clone();
    let next = tokio::spawn(async move { mark(&cache, "next").await });
    let is_loading = async || harness.cache.index().await.iter().any(|e| e.state == ModelState::Loading);
    eventually("the load", is_loading).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!next.is_finished(), "both GPUs are in use");
    let freed = devices(&harness, "busy-1");
    gates[1].send(()).expect("the model waits at its gate");
    next.await.expect("no panic").expect("room was made");
    assert_eq!(devices(&harness, "next"), freed);
    assert_eq!(ready(&harness).await, ["busy-0", "next"]);
    drop(gates);
    for busy in busy {
        busy.await.expect("no panic").expect("it was never evicted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_model_goes_is_decided_again_for_each_load() {
    let harness = harness(100, &[10, 10]);
    put(&harness, "wanderer", ANY_GPU, 10, &[]);
    harness.mark("wanderer").await.expect("loads");
    let [Device::Gpu(first)] = devices(&harness, "wanderer")[..] else { panic!("it is on one GPU") };
    put(&harness, "settler", &format!("{{ kind: KIND_GPU gpus: [ {first} ] }}"), 10, &[]);
    harness.mark("settler").await.expect("room is made");
    assert_eq!(ready(&harness).await, ["settler"]);
    harness.mark("wanderer").await.expect("there is room on the other one");
    assert_eq!(devices(&harness, "wanderer"), [Device::Gpu(1 - first)]);
    assert_eq!(ready(&harness).await, ["settler", "wanderer"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_a_gpu_cannot_run_is_known_to_need_none() {
    let harness = harness(100, &[10]);
    put(&harness, "displaced", ANY_GPU, 10, &[("falls_back", "yes"), ("mark", "1")]);
    put(&harness, "gpu", ANY_GPU, 10, &[]);
    harness.mark("displaced").await.expect("loads");
    assert_eq!(devices(&harness, "displaced"), [Device::Host], "the GPU's room was given back");
    harness.mark("gpu").await.expect("there is room");
    harness
        .cache
        .unload(&ModelKey::of_target(TargetModel::new("displaced").expect("valid")), false)
        .await
        .expect("goes");
    eventually("the unload", async || ready(&harness).await == ["gpu"]).await;
    assert_eq!(harness.mark("displaced").await.expect("comes back"), 1);
    assert_eq!(ready(&harness).await, ["displaced", "gpu"], "nobody left the GPU for it again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_on_no_gpu_is_refused_and_says_so() {
    let harness = harness(100, &[10, 20]);
    put(&harness, "huge", ANY_GPU, 50, &[]);
    let error = harness.mark("huge").await.expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::NoRoom);
    assert!(error.message().contains("on gpu1: it needs 50 bytes, 20 of 20 are free"), "{error}");
    put(&harness, "auto", EITHER, 50, &[]);
    harness.mark("auto").await.expect("the host has room");
    assert_eq!(devices(&harness, "auto"), [Device::Host]);
}

/// A cache of target models that moves them between devices, and what to drop for it to stop.
fn moving(host: u64, gpus: &[u64]) -> (Arc<Harness>, tokio::task::AbortHandle) {
    let harness = Arc::new(harness(host, gpus));
    let moving = tokio::spawn(harness.cache.move_between_devices()).abort_handle();
    (harness, moving)
}

/// Waits until a model in memory is on these devices.
async fn until_on(harness: &Harness, target: &str, expected: &[Device]) {
    let is_there = async || ready(harness).await.contains(&target.to_owned()) && devices(harness, target) == expected;
    eventually("its move", is_there).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_evicted_from_a_gpu_and_may_be_on_the_host_is_loaded_there() {
    let (harness, moving) = moving(30, &[10]);
    for (target, group, mark) in [("either", EITHER, "1"), ("gpu", ANY_GPU, "2"), ("next", ANY_GPU, "3")] {
        put(&harness, target, group, 10, &[("mark", mark)]);
    }
    harness.mark("either").await.expect("there is room on the GPU");
    assert_eq!(devices(&harness, "either"), [Device::Gpu(0)]);
    harness.mark("gpu").await.expect("room is made");
    until_on(&harness, "either", &[Device::Host]).await;
    let loads = harness.loads();
    assert_eq!(harness.mark("either").await.expect("is in memory"), 1);
    assert_eq!(harness.loads(), loads, "no request loads it");
    // What must be on a GPU only leaves memory.
    harness.mark("next").await.expect("room is made");
    until_on(&harness, "next", &[Device::Gpu(0)]).await;
    assert_eq!(ready(&harness).await, ["either", "next"]);
    moving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_the_host_moves_to_a_gpu_when_there_is_room_and_requests_go_on() {
    let (harness, moving) = moving(30, &[10]);
    put(&harness, "gpu", ANY_GPU, 10, &[]);
    put(&harness, "either", EITHER, 10, &[("mark", "1")]);
    harness.mark("gpu").await.expect("there is room");
    harness.mark("either").await.expect("there is room on the host");
    assert_eq!(devices(&harness, "either"), [Device::Host]);
    let gpu = ModelKey::of_target(TargetModel::new("gpu").expect("valid"));
    harness.cache.unload(&gpu, false).await.expect("it goes");
    for _ in 0..2000 {
        assert_eq!(harness.mark("either").await.expect("served all the time"), 1);
        if devices(&harness, "either") == [Device::Gpu(0)] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(devices(&harness, "either"), [Device::Gpu(0)]);
    assert_eq!(harness.loads(), 3, "it was loaded once more");
    moving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_unloaded_by_name_does_not_come_back_on_the_host() {
    let harness = Arc::new(harness(30, &[20]));
    for target in ["first", "second"] {
        put(&harness, target, EITHER, 10, &[]);
        harness.mark(target).await.expect("there is room on the GPU");
    }
    put(&harness, "gpu", ANY_GPU, 20, &[]);
    harness.mark("gpu").await.expect("room is made");
    assert_eq!(ready(&harness).await, ["gpu"]);
    // The one that left last is the first to come back.
    let second = ModelKey::of_target(TargetModel::new("second").expect("valid"));
    harness.cache.unload(&second, false).await.expect("it is not in memory anyway");
    let moving = tokio::spawn(harness.cache.move_between_devices()).abort_handle();
    until_on(&harness, "first", &[Device::Host]).await;
    assert_eq!(ready(&harness).await, ["first", "gpu"]);
    assert_eq!(harness.loads(), 4, "each once, and one once more");
    moving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stated_size_is_the_hosts_where_the_backend_puts_nothing_on_a_gpu() {
    let harness = harness(100, &[20]);
    let config = model_config(&[("memory_bytes", "50"), ("actual", "10"), ("falls_back", "yes")]);
    harness.put_config("stated", &format!("{config}instance_group [ {ANY_GPU} ]\n"));
    harness.mark("stated").await.expect("the host has room");
    assert_eq!(devices(&harness, "stated"), [Device::Host]);
}

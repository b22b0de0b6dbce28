//! Several GPUs, through the real binary: which there are, what models may take of them, and who goes where. There is no GPU: the
//! CUDA driver that the server loads is one of the tests. Models of the `identity` backend count as taking what they state.

use std::collections::BTreeMap;

use e2e::{Config, Driver, FolderStore, Launch, Metrics, Server, Store, generated_model, spin_request, until};
use test_util::archive::ArchiveBuilder;

use crate::{ask_echo, assert_has};

const MIB: f64 = 1048576.0;

/// A model that counts as taking so much of each GPU that it is on.
fn claiming(mebibytes: u64, groups: &str) -> Vec<u8> {
    let config = Config::new("m", "identity").input("X", "FP32", "-1").output("Y", "FP32", "-1");
    let config =
        config.parameter("memory_bytes", &format!("{mebibytes}MiB")).line(&format!("instance_group [ {groups} ]"));
    ArchiveBuilder::new().file("config.pbtxt", config.text()).gzip()
}

/// Bytes that models hold on a device, in MiB without the few kilobytes that each takes on the host.
fn held(metrics: &Metrics, device: &str) -> f64 {
    (metrics.sum("panoply_resident_bytes", &[("device", device)]) / MIB).floor()
}

/// Where a model is, as its statistics tell.
async fn devices(server: &Server, target: &str) -> Vec<String> {
    let statistics = server.get(&format!("/v2/models/{target}/stats")).await.ok().json();
    let memory = statistics["model_stats"][0]["memory_usage"].as_array().expect("a list").clone();
    let place = |one: &serde_json::Value| format!("{}{}", one["type"].as_str().expect("a name"), one["id"]);
    memory.iter().map(place).collect()
}

/// The GPUs of the models that are ready, as the index lists them.
async fn index(server: &Server) -> BTreeMap<String, serde_json::Value> {
    let index = server.http().post(&server.url("/v2/repository/index"), &serde_json::json!({"ready": true})).await;
    let lines = index.ok().json().as_array().expect("a list").clone();
    let line = |line: &serde_json::Value| (line["name"].as_str().expect("a name").to_owned(), line["gpus"].clone());
    lines.iter().map(line).collect()
}

/// A machine with GPUs of 1000 MiB, all free, of 2000 MiB, half of it free, and of 500 MiB, which models may not use.
fn launch(driver: &Driver, store: &FolderStore) -> Launch {
    let launch = store.launch().option("--gpu-memory", "0=400MiB,1=50%,2=0");
    driver.with_gpus(launch, &[(1000, 1000), (2000, 1000), (500, 500)])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_gpu_has_a_budget_of_its_own() {
    let (driver, store) = (Driver::build(), FolderStore::new());
    let server = launch(&driver, &store).start().await;
    assert_eq!(server.log_lines_with(&["found a GPU", "GPU of the tests"]), 3);
    let metrics = server.metrics().await;
    let budget = |device: &str| metrics.sum("panoply_memory_budget_bytes", &[("device", device)]) / MIB;
    assert_eq!((budget("gpu0"), budget("gpu1"), budget("gpu2")), (400.0, 500.0, 0.0));
    server.stop().await;
    let absent = driver.with_gpus(store.launch().option("--gpu-memory", "7=1GiB"), &[(1000, 1000)]);
    let (code, log) = absent.run().await;
    assert_ne!(code, Some(0));
    assert_has(&log, &["--gpu-memory names GPU 7, but this machine has GPUs [0]"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_go_to_the_gpu_with_room_and_evict_only_there() {
    let (driver, store) = (Driver::build(), FolderStore::new());
    let any = "{ kind: KIND_GPU }";
    for index in 0..4 {
        store.put(&format!("m{index}.tar.gz"), &claiming(200, any));
    }
    store.put("auto.tar.gz", &claiming(200, "{ kind: KIND_AUTO }"));
    store.put("listed.tar.gz", &claiming(300, "{ kind: KIND_GPU gpus: [ 1 ] }"));
    store.put("both.tar.gz", &claiming(150, "{ kind: KIND_GPU gpus: [ 0, 1 ] }"));
    store.put("absent.tar.gz", &claiming(1, "{ kind: KIND_GPU gpus: [ 2 ] }"));
    let server = launch(&driver, &store).start().await;
    for index in 0..4 {
        ask_echo(&server, &format!("m{index}.tar.gz"), &[1.0]).await.ok();
    }
    let metrics = server.metrics().await;
    assert_eq!((held(&metrics, "gpu0"), held(&metrics, "gpu1")), (400.0, 400.0), "two on each, nobody evicted");

    ask_echo(&server, "auto.tar.gz", &[1.0]).await.ok();
    assert_eq!(devices(&server, "auto.tar.gz").await, ["CPU0"], "the GPUs are full, and it may be on the host");
    ask_echo(&server, "listed.tar.gz", &[1.0]).await.ok();
    let metrics = server.metrics().await;
    assert_eq!((held(&metrics, "gpu0"), held(&metrics, "gpu1")), (400.0, 500.0), "one left gpu1, none gpu0");
    let evicted = |device: &str| metrics.sum("panoply_device_evictions_total", &[("device", device)]);
    assert_eq!((evicted("gpu0"), evicted("gpu1")), (0.0, 1.0));
    assert_eq!(index(&server).await["listed.tar.gz"], serde_json::json!([1]));

    ask_echo(&server, "both.tar.gz", &[1.0]).await.ok();
    assert_eq!(devices(&server, "both.tar.gz").await, ["CPU0", "GPU0", "GPU1"], "on each that it lists");
    let metrics = server.metrics().await;
    assert!(held(&metrics, "gpu0") <= 400.0 && held(&metrics, "gpu1") <= 500.0, "room was made on both");

    let refused = ask_echo(&server, "absent.tar.gz", &[1.0]).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_has(&refused.error(), &["names GPU 2", "[0, 1]"]);
    server.stop().await;
}

/// The tiers: GPU, host, disk.
#[tokio::test(flavor = "multi_thread")]
async fn models_that_may_be_on_the_host_go_there_and_come_back() {
    let (driver, store) = (Driver::build(), FolderStore::new());
    store.put("either.tar.gz", &claiming(300, "{ kind: KIND_AUTO }"));
    store.put("first.tar.gz", &claiming(300, "{ kind: KIND_GPU }"));
    store.put("second.tar.gz", &claiming(300, "{ kind: KIND_GPU }"));
    let launch = store.launch().option("--gpu-memory", "400MiB").option("--model-memory", "1GiB");
    let server = driver.with_gpus(launch, &[(1000, 1000)]).start().await;
    ask_echo(&server, "either.tar.gz", &[1.0]).await.ok();
    assert_eq!(devices(&server, "either.tar.gz").await, ["CPU0", "GPU0"]);

    ask_echo(&server, "first.tar.gz", &[1.0]).await.ok();
    let is_back = async || index(&server).await.contains_key("either.tar.gz").then_some(());
    until("it is loaded on the host", is_back).await;
    assert_eq!(devices(&server, "either.tar.gz").await, ["CPU0"]);
    assert_eq!(server.metrics().await.sum("panoply_archive_moves_total", &[("to", "host")]), 1.0);
    assert_eq!(ask_echo(&server, "either.tar.gz", &[1.0]).await.ok().cache(), "memory");

    // What must be on the GPU is on disk only, once it had to leave.
    ask_echo(&server, "second.tar.gz", &[1.0]).await.ok();
    assert_eq!(ask_echo(&server, "first.tar.gz", &[1.0]).await.ok().cache(), "disk");

    let unload = server.url("/v2/repository/models/first.tar.gz/unload");
    server.http().post(&unload, &serde_json::json!({})).await.ok();
    let has_moved = async || {
        ask_echo(&server, "either.tar.gz", &[1.0]).await.ok();
        (devices(&server, "either.tar.gz").await == ["CPU0", "GPU0"]).then_some(())
    };
    until("it is on the GPU again", has_moved).await;
    assert_eq!(server.metrics().await.sum("panoply_archive_moves_total", &[("to", "gpu0")]), 1.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn onnx_models_that_the_gpu_cannot_run_give_its_room_back() {
    let (driver, store) = (Driver::build(), FolderStore::new());
    let config = Config::new("spin", "onnxruntime").input("rounds", "INT64", "1").output("done", "INT64", "1");
    let config = config.line("instance_group [ { kind: KIND_GPU } ]");
    let archive =
        ArchiveBuilder::new().file("config.pbtxt", config.text()).file("1/model.onnx", generated_model("spin"));
    store.put("spin.tar.gz", &archive.gzip());
    let server = launch(&driver, &store).start().await;
    // The tests' ONNX Runtime is built without CUDA.
    assert_eq!(server.invoke("spin.tar.gz", &spin_request(7)).await.ok().numbers("done"), [7.0]);
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("panoply_gpu_fallbacks_total", &[]), 1.0);
    assert_eq!((held(&metrics, "gpu0"), held(&metrics, "gpu1")), (0.0, 0.0));
    assert!(metrics.sum("panoply_resident_bytes", &[("device", "host")]) > 0.0);
    server.stop().await;
}

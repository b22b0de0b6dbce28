//! What is in memory from the start: what the settings name, and what was there before.

use e2e::{Launch, S3Store, Server, Store, echo, until};
use serde_json::Value;

use crate::ask_echo;
use crate::room::claiming;

const TARGETS: [&str; 5] = ["a.tar.gz", "b.tar.gz", "c.tar.gz", "d.tar.gz", "e.tar.gz"];

/// What was noted for the next start, the most valuable first.
fn noted(launch: &Launch) -> Vec<String> {
    let Ok(text) = std::fs::read(launch.disk_cache().join("resident.json")) else { return Vec::new() };
    let record: Value = serde_json::from_slice(&text).expect("never half a file");
    let archives = record["archives"].as_array().expect("an array");
    archives.iter().map(|archive| archive["target"].as_str().expect("a string").to_owned()).collect()
}

/// A server that has loaded all targets, the last of them last.
async fn serving() -> (S3Store, Launch, Server) {
    let store = S3Store::start().await;
    TARGETS.iter().for_each(|target| store.put(target, &echo()));
    let launch = store.launch();
    let server = launch.start().await;
    for target in TARGETS {
        ask_echo(&server, target, &[1.0]).await.ok();
    }
    (store, launch, server)
}

fn most_recent_first() -> Vec<&'static str> {
    TARGETS.into_iter().rev().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_memory_is_there_again_after_a_restart_and_after_a_crash() {
    let (store, launch, mut server) = serving().await;
    for is_crash in [true, false] {
        if is_crash {
            until("all are noted", async || (noted(&launch) == most_recent_first()).then_some(())).await;
            server.kill().await;
        } else {
            server.stop().await;
        }
        assert_eq!(noted(&launch), most_recent_first());
        server = launch.start().await;
        until("all are in memory again", async || {
            (server.metrics().await.sum("panoply_restored_models_total", &[]) == 5.0).then_some(())
        })
        .await;
        // Without a request, and from disk.
        let metrics = server.metrics().await;
        assert_eq!(metrics.sum("panoply_resident_archives", &[]), 5.0);
        assert_eq!(metrics.sum("panoply_model_loads_total", &[("tier", "disk")]), 5.0);
        assert_eq!(TARGETS.map(|target| store.gets(target)), [1; 5]);
        for target in TARGETS {
            assert_eq!(ask_echo(&server, target, &[1.0]).await.ok().cache(), "memory", "{target}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_makes_no_sense_and_a_setting_keep_it_from_being_loaded() {
    let (_store, launch, server) = serving().await;
    server.stop().await;
    let record = launch.disk_cache().join("resident.json");
    let server = launch.clone().option("--restore-resident", "false").start().await;
    assert_eq!(server.metrics().await.sum("panoply_resident_archives", &[]), 0.0);
    server.stop().await;
    assert_eq!(noted(&launch).len(), 5, "it was left alone");
    std::fs::write(&record, "{\"format\":1,\"archives\":[{").expect("writes");
    let server = launch.start().await;
    until("it is said", async || (server.log_lines_with(&["resident.json", "cannot be read"]) == 1).then_some(()))
        .await;
    assert_eq!(server.metrics().await.sum("panoply_model_loads_total", &[]), 0.0);
    ask_echo(&server, TARGETS[0], &[1.0]).await.ok();
    until("it is written anew", async || {
        let text = std::fs::read_to_string(&record).expect("there");
        text.ends_with("]}").then_some(())
    })
    .await;
    assert_eq!(noted(&launch), [TARGETS[0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_settings_name_is_loaded_before_the_server_is_ready_and_stays() {
    let store = S3Store::start().await;
    for target in ["kept.tar.gz", "b.tar.gz", "c.tar.gz"] {
        store.put(target, &claiming(10 << 20));
    }
    store.put("huge.tar.gz", &claiming(200 << 20));
    let launch = store.launch().option("--model-memory", "20MiB");
    let launch = launch.option("--load-target-model", "kept.tar.gz,nope.tar.gz,huge.tar.gz");
    let server = launch.flag("--await-target-models").start().await;
    for target in ["nope.tar.gz", "huge.tar.gz"] {
        assert_eq!(server.log_lines_with(&[target, "to be loaded at start cannot be"]), 1, "{target}");
    }
    for target in ["b.tar.gz", "c.tar.gz", "b.tar.gz"] {
        ask_echo(&server, target, &[1.0]).await.ok();
    }
    assert_eq!(ask_echo(&server, "kept.tar.gz", &[1.0]).await.ok().cache(), "memory");
    let url = server.url("/v2/repository/models/kept.tar.gz/unload");
    server.http().send(http::Method::POST, &url, &[], "").await.ok();
    for target in ["b.tar.gz", "c.tar.gz"] {
        ask_echo(&server, target, &[1.0]).await.ok();
    }
    assert_eq!(ask_echo(&server, "kept.tar.gz", &[1.0]).await.ok().cache(), "disk", "unloaded, it is as others");
    let (code, log) = Launch::new().option("--load-target-model", "kept.tar.gz").run().await;
    assert!(code != Some(0) && log.contains("--load-target-model needs --model-store"), "{code:?}: {log}");
}

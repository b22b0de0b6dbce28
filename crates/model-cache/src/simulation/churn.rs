//! Room in memory, in paused time: what clients get who each want a model when there is room for one, what a load that waits
//! is left, and what becomes of a budget that shrinks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use inference::{Device, MemoryUsage, TargetModel};
use tokio::runtime::Handle;

use super::world::config;
use crate::clock::now;
use crate::config::ModelCacheConfig;
use crate::loaded::{Elsewhere, Files, LoadedArchive};
use crate::metrics::CacheMetrics;
use crate::policy::EvictionPolicy;
use crate::residency::Arrival;
use crate::room::{Room, UnloadReason};
use crate::route::ArchiveKey;

const MINUTE: Duration = Duration::from_secs(60);
/// How long a client takes with an answer.
const USE: Duration = Duration::from_millis(10);

fn key(name: &str) -> ArchiveKey {
    ArchiveKey::Target(TargetModel::new(name).expect("valid"))
}

fn bytes(bytes: u64) -> MemoryUsage {
    MemoryUsage::on(Device::Host, bytes)
}

fn room_for_one() -> Arc<Room> {
    room_of(10)
}

fn room_of(budget: u64) -> Arc<Room> {
    let budget = bytes(budget);
    Room::new(&ModelCacheConfig { budget, room_timeout: MINUTE, ..config(EvictionPolicy::Lru) }, CacheMetrics)
}

/// Loads an archive, which takes so long once there is room.
async fn load(room: &Arc<Room>, key: &ArchiveKey, load: Duration) {
    load_as(room, key, Arrival { kept: false, load, is_unasked: false, is_renewal: false }).await;
}

async fn load_as(room: &Arc<Room>, key: &ArchiveKey, arrival: Arrival) {
    let reservation = room.reserve(key, bytes(10), MINUTE).await.expect("there is room in time");
    tokio::time::sleep(arrival.load).await;
    let archive = archive(key, arrival.load);
    assert!(reservation.commit(archive, arrival, None).is_ok(), "it replaces nothing in particular");
}

fn archive(key: &ArchiveKey, took: Duration) -> LoadedArchive {
    LoadedArchive {
        key: key.clone(),
        version: "".into(),
        usage: bytes(10),
        took,
        elsewhere: Elsewhere::default(),
        models: BTreeMap::new(),
        entry: None,
        files: Files::Foreign,
        members: Vec::new(),
    }
}

/// Uses an archive over and over for `duration`, loading it whenever it is not there. How often it did each.
async fn client(room: Arc<Room>, name: &str, load_time: Duration, duration: Duration) -> (usize, usize) {
    let (key, end, mut uses, mut loads) = (key(name), now() + duration, 0, 0);
    while now() < end {
        if let Some(_pin) = room.pin(&key) {
            uses += 1;
            tokio::time::sleep(USE).await;
        } else {
            loads += 1;
            load(&room, &key, load_time).await;
        }
        // Nobody holds it here: without protection it could go.
        tokio::time::sleep(USE).await;
    }
    (uses, loads)
}

#[tokio::test(start_paused = true)]
async fn memory_turns_over_no_faster_than_models_load() {
    super::without_dice();
    let (room, load_time) = (room_for_one(), Duration::from_secs(2));
    let clients = ["a", "b"].map(|name| tokio::spawn(client(room.clone(), name, load_time, 2 * MINUTE)));
    let (mut uses, mut loads) = (0, 0);
    for client in clients {
        let (used, loaded) = client.await.expect("no panic");
        uses += used;
        loads += loaded;
    }
    // Two seconds of loading, two of use, and so on: 30 turns in two minutes instead of 60, and the time between is used.
    assert!((28..=32).contains(&loads), "{loads} loads");
    assert!(uses >= 25 * 2000 / (2 * USE.as_millis() as usize), "{uses} uses");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_any_more_does_not_stand_in_the_way() {
    super::without_dice();
    let (room, load_time) = (room_for_one(), Duration::from_secs(8));
    load(&room, &key("a"), load_time).await;
    let idle_since = now();
    room.reserve(&key("b"), bytes(10), MINUTE).await.expect("there is room in time");
    let waited = now() - idle_since;
    assert!(waited >= Duration::from_secs(1) && waited < Duration::from_millis(1100), "an eighth of eight: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn protection_of_what_others_loaded_refuses_nobody_in_line() {
    super::without_dice();
    let (room, load_time) = (room_for_one(), Duration::from_secs(12));
    // Were each protected in turn, the last in line would wait for 3 × (12 + 12) seconds, and has a minute.
    let names = ["a", "b", "c", "d"];
    let clients = names.map(|name| tokio::spawn(client(room.clone(), name, load_time, 4 * MINUTE)));
    for client in clients {
        let (_, loads) = client.await.expect("none is refused");
        assert!(loads >= 4, "{loads} loads");
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_grows_takes_nothing_that_a_load_waits_for() {
    super::without_dice();
    let room = room_of(20);
    load(&room, &key("a"), Duration::ZERO).await;
    let in_use = room.pin(&key("a")).expect("loaded");
    let loading = room.clone();
    let loading = tokio::spawn(async move { loading.reserve(&key("b"), bytes(15), MINUTE).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(room.reserve_if_it_fits(bytes(5)).is_none(), "ten are free, and somebody waits for fifteen");
    drop(in_use);
    let _loading = loading.await.expect("no panic").expect("there is room now");
    assert!(room.reserve_if_it_fits(bytes(5)).is_some(), "nobody waits");
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_shrank_is_kept_as_far_as_can_be_and_by_one_task() {
    super::without_dice();
    let room = room_of(40);
    load_as(&room, &key("kept"), Arrival { kept: true, load: Duration::ZERO, is_unasked: false, is_renewal: false })
        .await;
    load(&room, &key("idle"), Duration::ZERO).await;
    load(&room, &key("used"), Duration::ZERO).await;
    let in_use = room.pin(&key("used")).expect("loaded");
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let used = || room.read(|residency| residency.used(Device::Host));
    for budget in (0..10).rev() {
        room.set_budget(bytes(budget));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((tasks(), used()), (1, 20), "what nobody uses is gone; what is in use stays");
    }
    drop(in_use);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((tasks(), used()), (1, 10), "an operator keeps it");
    room.set_budget(bytes(10));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((tasks(), used()), (0, 10), "nothing is left to do");
    room.set_budget(bytes(5));
    drop(room);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(tasks(), 0, "it ends with the room");
}

#[tokio::test(start_paused = true)]
async fn what_was_unloaded_meanwhile_is_not_replaced() {
    super::without_dice();
    let (room, key) = (room_of(20), key("replaced"));
    let arrival = Arrival { kept: false, load: Duration::ZERO, is_unasked: false, is_renewal: true };
    load(&room, &key, Duration::ZERO).await;
    let old = room.pin(&key).expect("loaded");
    let replace = async || {
        let reservation = room.reserve(&key, bytes(10), MINUTE).await.expect("there is room");
        reservation.commit(archive(&key, Duration::ZERO), arrival, Some(&old))
    };
    let Ok(new) = replace().await else { panic!("the old one is there") };
    assert!(room.is_resident(&new));
    drop(new);
    room.begin_remove(&key, UnloadReason::Request);
    let Err(refused) = replace().await else { panic!("another one has taken its place, and was unloaded") };
    assert!(room.pin(&key).is_none());
    drop((refused, old));
    tokio::time::sleep(MINUTE).await;
    assert_eq!(room.read(|residency| residency.used(Device::Host)), 0, "all is given back");
}

//! Protection against churn, in paused time: what two clients get who each want a model when there is room for one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use inference::{Device, MemoryUsage, TargetModel};

use super::world::config;
use crate::clock::now;
use crate::config::ModelCacheConfig;
use crate::loaded::{Files, LoadedArchive};
use crate::metrics::CacheMetrics;
use crate::policy::EvictionPolicy;
use crate::residency::Arrival;
use crate::room::Room;
use crate::route::ArchiveKey;

const MINUTE: Duration = Duration::from_secs(60);
/// How long a client takes with an answer.
const USE: Duration = Duration::from_millis(10);

fn key(name: &str) -> ArchiveKey {
    ArchiveKey::Target(TargetModel::new(name).expect("valid"))
}

fn room_for_one() -> Arc<Room> {
    let budget = MemoryUsage::on(Device::Host, 10);
    Room::new(&ModelCacheConfig { budget, room_timeout: MINUTE, ..config(EvictionPolicy::Lru) }, CacheMetrics)
}

/// Loads an archive, which takes so long once there is room.
async fn load(room: &Arc<Room>, key: &ArchiveKey, load: Duration) {
    let usage = MemoryUsage::on(Device::Host, 10);
    let reservation = room.reserve(key, usage.clone(), MINUTE).await.expect("there is room in time");
    tokio::time::sleep(load).await;
    let archive = LoadedArchive {
        key: key.clone(),
        version: "".into(),
        usage,
        took: load,
        models: BTreeMap::new(),
        entry: None,
        files: Files::Foreign,
        members: Vec::new(),
    };
    reservation.commit(archive, Arrival { kept: false, load, is_unasked: false });
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
    room.reserve(&key("b"), MemoryUsage::on(Device::Host, 10), MINUTE).await.expect("there is room in time");
    let waited = now() - idle_since;
    assert!(waited >= Duration::from_secs(1) && waited < Duration::from_millis(1100), "an eighth of eight: {waited:?}");
}

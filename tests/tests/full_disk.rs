//! A disk that is smaller than the settings say: a file system of 4 MiB of the server's own.

use e2e::{Config, FolderStore, Server, Store, padding};
use test_util::archive::ArchiveBuilder;

use crate::{ask_echo, assert_has};

const DISK: &str = "4m";

fn archive(model: &str, bytes: usize) -> Vec<u8> {
    let config = Config::new(model, "identity").input("X", "FP32", "-1").output("Y", "FP32", "-1");
    ArchiveBuilder::new()
        .file(&format!("{model}/config.pbtxt"), config.text())
        .file(&format!("{model}/1/padding.bin"), padding(bytes))
        .gzip()
}

struct Scene {
    _store: FolderStore,
    server: Server,
    cache: std::path::PathBuf,
}

impl Scene {
    /// `None` where this process may not mount file systems.
    async fn new() -> Option<Self> {
        let store = FolderStore::new();
        for name in ["a", "b", "c", "d", "e"] {
            store.put(name, &archive(name, 1 << 20));
        }
        store.put("large", &archive("large", 6 << 20));
        let launch = store.launch().with_disk_of(DISK)?;
        let (server, cache) = (launch.start().await, launch.disk_cache());
        Some(Scene { _store: store, server, cache })
    }

    async fn answers(&self, target: &str) {
        assert_eq!(ask_echo(&self.server, target, &[2.5]).await.ok().numbers("Y"), [2.5]);
    }

    /// What lies in a folder of the cache, as the server sees it.
    fn count(&self, folder: &str) -> usize {
        let folder = self.server.path(&self.cache.join(folder));
        std::fs::read_dir(folder).expect("the cache has such a folder").count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_least_recently_used_makes_room_on_a_full_disk() {
    let Some(scene) = Scene::new().await else { return };
    for target in ["a", "b", "c", "d", "e", "a", "b", "e"] {
        scene.answers(target).await;
    }
    assert!(scene.count("entries") <= 3, "{} archives of 1 MiB are on a disk of 4 MiB", scene.count("entries"));
    assert_eq!(scene.count("staging"), 0);
    let metrics = scene.server.metrics().await;
    let evictions = metrics.sum("panoply_evictions_total", &[("tier", "disk"), ("reason", "disk_full")]);
    assert!(evictions >= 2.0, "{evictions} evictions");
    scene.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_on_a_full_disk_is_refused_and_nothing_is_left_of_it() {
    let Some(scene) = Scene::new().await else { return };
    scene.answers("a").await;
    let refused = ask_echo(&scene.server, "large", &[1.0]).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_has(&refused.error(), &["is full", "--disk-cache-size", "large"]);
    assert_eq!(scene.count("staging"), 0, "what was unpacked is removed");
    // The others are served as before.
    for target in ["b", "c", "a"] {
        scene.answers(target).await;
    }
    scene.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_fill_is_used_again_once_they_are_gone() {
    let Some(scene) = Scene::new().await else { return };
    let foreign = scene.server.path(&scene.cache.join("foreign"));
    // As much as there is.
    std::fs::write(&foreign, padding(8 << 20)).expect_err("the disk is not as large");
    let refused = ask_echo(&scene.server, "a", &[1.0]).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_has(&refused.error(), &["is full", "free some space"]);
    std::fs::remove_file(&foreign).expect("it is there");
    scene.answers("a").await;
    scene.server.stop().await;
}

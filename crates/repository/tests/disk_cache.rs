//! The disk cache: eviction, pins, replacement, restarts and crashes.

mod setup;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use inference::ErrorKind;
use repository::{Backoff, CachedArchive, DiskCache, DiskCacheConfig, Priority};
use setup::{Setup, target, text};
use test_util::archive::ArchiveBuilder;
use test_util::s3::MemoryS3;

const MIB: usize = 1 << 20;

/// About one MiB on disk, that compresses well.
fn archive(content: &str) -> Vec<u8> {
    ArchiveBuilder::new().file("name", content).file("m/1/weights", vec![0; MIB]).gzip()
}

/// The keys in the cache, least recently used first.
fn keys(setup: &Setup) -> Vec<String> {
    setup.cache.entries().iter().rev().map(|(target, _, _)| target.to_string()).collect()
}

async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not happen within 5 s");
}

#[tokio::test]
async fn the_least_recently_used_makes_room_unless_pinned() {
    let setup = Setup::with(|config| config.capacity = 4 * MIB as u64);
    for key in ["a", "b", "c"] {
        setup.put(key, &archive(key));
        setup.fetch(key).await.expect(key);
    }
    let a = setup.cache.lookup(&target("a")).expect("there");
    let b = setup.cache.lookup(&target("b")).expect("there");
    setup.put("d", &archive("d"));
    let d = setup.fetch("d").await.expect("c makes room");
    assert_eq!(keys(&setup), ["a", "b", "d"]);
    assert_eq!(setup.on_disk("entries").len(), 3);

    setup.put("e", &archive("e"));
    let error = setup.fetch("e").await.expect_err("everything is pinned");
    assert_eq!(error.kind(), ErrorKind::NoRoom);
    assert!(error.message().contains("--disk-cache-size"), "{error}");
    for (pinned, name) in [(&a, "a"), (&b, "b"), (&d, "d")] {
        assert_eq!(text(pinned.path(), "name"), name);
    }
    assert!(setup.on_disk("staging").is_empty());

    drop(b);
    setup.fetch("e").await.expect("b makes room; no room is not held against an archive");
    assert_eq!(keys(&setup), ["a", "d", "e"]);
    assert!(setup.cache.bytes() <= setup.cache.capacity());
}

#[tokio::test]
async fn an_archive_larger_than_the_cache_has_no_room_and_evicts_what_it_must() {
    let setup = Setup::with(|config| config.capacity = MIB as u64 / 2);
    setup.put("a", &archive("a"));
    assert_eq!(setup.fetch("a").await.expect_err("too large").kind(), ErrorKind::NoRoom);
    assert!(setup.on_disk("staging").is_empty() && setup.on_disk("entries").is_empty());
    assert_eq!(setup.cache.bytes(), 0);
}

#[tokio::test]
async fn a_replaced_archive_stays_while_it_is_pinned() {
    let setup = Setup::new();
    setup.put("a", &archive("old"));
    let old = setup.fetch("a").await.expect("old");
    setup.put("a", &archive("new"));
    let new = setup.fetch("a").await.expect("new");
    assert_eq!((text(old.path(), "name"), text(new.path(), "name")), ("old".into(), "new".into()));
    assert_ne!(old.etag(), new.etag());
    assert_eq!(setup.cache.lookup(&target("a")).expect("there").etag(), new.etag());
    let path = old.path().to_owned();
    let clone = old.clone();
    drop(old);
    assert!(path.exists(), "a clone pins, too");
    drop(clone);
    until(|| !path.exists() && setup.on_disk("staging").is_empty()).await;
    assert_eq!(setup.cache.bytes(), new.bytes());

    setup.cache.remove(&target("a"));
    assert!(setup.cache.lookup(&target("a")).is_none());
    assert_eq!(text(new.path(), "name"), "new");
    drop(new);
    until(|| setup.on_disk("entries").is_empty()).await;
}

/// Waits until the disk says that an archive was used at `before` or later; that is noted off the threads of requests.
async fn noted(archive: &CachedArchive, before: SystemTime) {
    let file = archive.path().with_file_name("archive.json");
    until(|| fs::metadata(&file).and_then(|file| file.modified()).expect("a time") >= before).await;
}

#[tokio::test]
async fn a_restart_keeps_what_is_complete_in_order_of_use() {
    let setup = Setup::new();
    for key in ["a", "team/b", "c"] {
        setup.put(key, &archive(key));
        setup.fetch(key).await.expect(key);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = SystemTime::now();
    noted(&setup.cache.lookup(&target("a")).expect("there"), before).await;
    let bytes = setup.cache.bytes();
    let entries = setup.cache.entries();

    let setup = setup.reopen(1 << 30);
    assert_eq!(keys(&setup), ["team/b", "c", "a"]);
    assert_eq!(setup.cache.entries(), entries);
    assert_eq!(setup.cache.bytes(), bytes);
    let before = SystemTime::now();
    let again = setup.fetch("team/b").await.expect("not fetched again");
    assert_eq!(text(again.path(), "name"), "team/b");
    noted(&again, before).await;
    drop(again);

    let setup = setup.reopen(2 * bytes / 3 + 100);
    assert_eq!(keys(&setup), ["a", "team/b"], "a smaller cache keeps the most recently used");
    assert_eq!(setup.on_disk("entries").len(), 2);
}

#[tokio::test]
async fn the_order_of_use_holds_when_the_clock_is_set_back() {
    let setup = Setup::new();
    for key in ["a", "b"] {
        setup.put(key, &archive(key));
    }
    let used = setup.fetch("a").await.expect("a");
    let file = used.path().with_file_name("archive.json");
    drop(used);
    // As if the clock had been a day ahead.
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(tomorrow)).expect("a time is set");
    let setup = setup.reopen(1 << 30);
    drop(setup.fetch("b").await.expect("b"));
    let setup = setup.reopen(1 << 30);
    assert_eq!(keys(&setup), ["a", "b"]);
    noted(&setup.cache.lookup(&target("a")).expect("there"), tomorrow + Duration::from_micros(2)).await;
    assert_eq!(keys(&setup.reopen(1 << 30)), ["b", "a"]);
}

#[tokio::test]
async fn what_a_crash_leaves_behind_is_cleaned_up() {
    let setup = Setup::new();
    for key in ["a", "b", "c", "d"] {
        setup.put(key, &archive(key));
        setup.fetch(key).await.expect(key);
    }
    let entry =
        |key: &str| setup.cache.lookup(&target(key)).expect("there").path().parent().expect("an entry").to_owned();
    let (b, c, d) = (entry("b"), entry("c"), entry("d"));
    let cache = setup.cache_directory();
    // Killed while unpacking, while deleting, and files that were never ours.
    fs::create_dir_all(cache.join("staging/0123-half/tree/m/1")).expect("leftovers");
    fs::write(cache.join("staging/0123-half/tree/m/1/weights"), "half").expect("leftovers");
    fs::write(cache.join("staging/stray"), "").expect("leftovers");
    fs::remove_file(b.join("archive.json")).expect("half-made");
    fs::write(c.join("archive.json"), "{\"format\": 1,").expect("half-made");
    fs::remove_dir_all(d.join("tree")).expect("half-made");
    fs::create_dir(cache.join("entries/empty")).expect("half-made");

    let setup = setup.reopen(1 << 30);
    assert_eq!(keys(&setup), ["a"]);
    assert_eq!(setup.on_disk("entries").len(), 1);
    assert!(setup.on_disk("staging").is_empty());
    assert_eq!(text(setup.fetch("b").await.expect("fetched anew").path(), "name"), "b");
}

#[tokio::test]
async fn one_server_at_a_time_and_one_store() {
    let setup = Setup::new();
    setup.put("a", &archive("a"));
    setup.fetch("a").await.expect("fetched");
    let config = || DiskCacheConfig::new(setup.cache_directory(), 1 << 30);
    let error = DiskCache::open(config(), setup.store.location()).expect_err("locked");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.message().contains("used by another server"), "{error}");

    let (config, Setup { cache, .. }) = (config(), &setup);
    assert_eq!(Arc::strong_count(cache), 1);
    let directory = setup.cache_directory();
    let other = tempfile::tempdir().expect("a folder");
    fs::rename(&directory, other.path().join("cache")).expect("moved");
    let config = DiskCacheConfig { directory: other.path().join("cache"), ..config };
    drop(setup);
    let cache = DiskCache::open(config, "s3://another/").expect("opens");
    assert_eq!(cache.entries(), [], "another store's archives are not served");
}

#[tokio::test]
async fn a_bad_archive_is_fetched_again_when_its_etag_changes_or_its_back_off_ends() {
    let server = MemoryS3::start().await;
    let pause = Duration::from_millis(300);
    let setup =
        Setup::over_s3(&server, |config| config.refusal_backoff = Backoff { initial: pause, maximum: pause }).await;
    server.put("a", "no gzip");
    let first = setup.fetch("a").await.expect_err("bad");
    let second = setup.fetch("a").await.expect_err("bad");
    assert_eq!(first.message(), second.message());
    assert_eq!(server.gets("a"), 1);
    tokio::time::sleep(pause).await;
    setup.fetch("a").await.expect_err("bad");
    assert_eq!(server.gets("a"), 2, "the back-off has ended");
    server.put("a", archive("a"));
    setup.fetch("a").await.expect("another ETag");
    assert_eq!(server.gets("a"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_fetches_of_one_version_do_no_harm() {
    let setup = Arc::new(Setup::new());
    setup.put("a", &archive("a"));
    let fetches = (0..8).map(|_| {
        let setup = Arc::clone(&setup);
        tokio::spawn(async move { setup.fetch("a").await.expect("fetched") })
    });
    let archives = futures::future::join_all(fetches.collect::<Vec<_>>()).await;
    for archive in &archives {
        assert_eq!(text(archive.as_ref().expect("no panic").path(), "name"), "a");
    }
    assert_eq!(setup.cache.entries().len(), 1);
    until(|| setup.on_disk("entries").len() == 1 && setup.on_disk("staging").is_empty()).await;
}

/// Many archives, little room, pins held for a moment: what is pinned is always right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_pressure_everyone_reads_the_right_archive() {
    let setup = Arc::new(Setup::with(|config| config.capacity = 4 * MIB as u64));
    for key in 0..8 {
        setup.put(&key.to_string(), &archive(&key.to_string()));
    }
    let tasks = (0..6u64).map(|task| {
        let setup = Arc::clone(&setup);
        tokio::spawn(async move {
            let mut served = 0;
            for round in 0..10 {
                let key = ((task * 7 + round * 5) % 8).to_string();
                match setup.fetch(&key).await {
                    Ok(archive) => {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        assert_eq!(text(archive.path(), "name"), key);
                        assert!(archive.path().join("m/1/weights").exists());
                        served += 1;
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NoRoom, "{error}"),
                }
            }
            served
        })
    });
    let served: Vec<_> = futures::future::join_all(tasks.collect::<Vec<_>>()).await;
    assert!(served.into_iter().map(|count| count.expect("no panic")).sum::<u32>() > 10);
    assert!(setup.cache.bytes() <= setup.cache.capacity());
    assert_eq!(setup.on_disk("entries").len(), setup.cache.entries().len());
    assert!(setup.on_disk("staging").is_empty());
}

#[tokio::test]
async fn no_more_archives_are_unpacked_at_a_time_than_the_settings_allow() {
    let server = MemoryS3::start().await;
    server.set_chunk_delay(Duration::from_millis(60));
    let setup =
        Arc::new(Setup::over_s3(&server, |config| config.download.archives = 2.try_into().expect("not zero")).await);
    let fetches = (0..5).map(|key| {
        let (setup, key) = (Arc::clone(&setup), key.to_string());
        server.put(&key, archive(&key));
        tokio::spawn(async move { setup.fetch(&key).await.expect("fetched") })
    });
    let fetches: Vec<_> = fetches.collect();
    let mut most = 0;
    while !fetches.iter().all(tokio::task::JoinHandle::is_finished) {
        most = most.max(setup.on_disk("staging").len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((most, setup.cache.entries().len()), (2, 5));
}

/// What waits for a disk would hold up the other requests of the thread.
#[test]
fn pinning_works_on_no_file_on_a_thread_that_carries_requests() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    runtime.expect("a runtime").block_on(async {
        let server = MemoryS3::start().await;
        let setup = Setup::over_s3(&server, |_| {}).await;
        let a = target("a");
        server.put("a", archive("old"));
        let old_info = setup.store.head(&a).await.expect("there");
        let old = setup.fetch("a").await.expect("old");
        server.put("a", archive("new"));
        let new = setup.fetch("a").await.expect("new").path().to_owned();
        let used_at = || fs::metadata(old.path().with_file_name("archive.json")).and_then(|file| file.modified());
        let before = used_at().expect("a time");

        // The only thread for files is busy.
        let (release, busy) = std::sync::mpsc::channel::<()>();
        let blocked = tokio::task::spawn_blocking(move || busy.recv());
        setup.cache.lookup(&a).expect("there");
        let (again, _) = setup
            .cache
            .fetch(&setup.store, &a, &old_info, &Priority::Interactive.into())
            .await
            .expect("on disk already");
        assert_eq!(again.path(), old.path(), "the old version is current again");
        assert!(new.exists() && used_at().expect("a time") == before, "nothing has touched a file yet");
        release.send(()).expect("still busy");
        blocked.await.expect("no panic").expect("released");
        until(|| !new.exists() && used_at().expect("a time") > before).await;
    });
}

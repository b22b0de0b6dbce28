//! Every kind of bad archive: a clear error, nothing left behind, no second download, and neighbours that keep working.

use std::path::Path;

use e2e::{Config, S3Store, Store, echo, echo_named, padding};
use tar::EntryType;
use test_util::archive::{ArchiveBuilder, gzip};
use test_util::s3::ObjectChecksum;

use crate::{ask_echo, assert_has};

struct Bad {
    target: &'static str,
    archive: Vec<u8>,
    /// What the error must hold: the entry, and why.
    parts: &'static [&'static str],
}

fn bad(target: &'static str, archive: impl Into<Vec<u8>>, parts: &'static [&'static str]) -> Bad {
    Bad { target, archive: archive.into(), parts }
}

/// A good model, to which something bad is added.
fn good() -> ArchiveBuilder {
    let config = Config::new("m", "identity").input("X", "FP32", "-1").output("Y", "FP32", "-1");
    ArchiveBuilder::new().file("m/config.pbtxt", config.text()).file("m/1/weights", padding(40_000))
}

fn damaged() -> Vec<Bad> {
    let whole = good().gzip();
    let half = whole[..whole.len() / 2].to_vec();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x55;
    let mut wrong_sum = whole.clone();
    let sum_at = whole.len() - 8;
    wrong_sum[sum_at] ^= 0xff;
    let half_tar = good().tar();
    vec![
        bad("empty", "", &["gzip"]),
        bad("text", "this is no archive, it is a letter", &["gzip"]),
        bad("bare-tar", good().tar(), &["gzip"]),
        bad("no-tar", gzip(&padding(5000)), &["tar"]),
        bad("truncated-gzip", half, &["truncated"]),
        bad("truncated-tar", gzip(&half_tar[..half_tar.len() / 2]), &["m/1/weights"]),
        bad("flipped-bit", flipped, &[]),
        bad("wrong-checksum", wrong_sum, &["gzip"]),
        bad("no-entries", ArchiveBuilder::new().gzip(), &["no files"]),
    ]
}

fn hostile() -> Vec<Bad> {
    let entry = |kind, path: &str, link: &str| good().entry(kind, path, link, 0o644, b"").gzip();
    let zeros = vec![0; 3 << 20];
    let many = (0..60).fold(good(), |archive, number| archive.file(&format!("m/1/{number}"), "x"));
    vec![
        bad("absolute", good().file("/etc/panoply-was-here", "x").gzip(), &["/etc/panoply-was-here", "absolute"]),
        bad("climbs", good().file("m/../../outside", "x").gzip(), &["m/../../outside", ".."]),
        bad("link-out", good().symlink("m/1/link", "../../../etc").gzip(), &["m/1/link", "leaves the archive"]),
        bad("link-absolute", good().symlink("m/1/link", "/etc/passwd").gzip(), &["m/1/link", "/etc/passwd"]),
        bad(
            "through-link",
            good().symlink("m/1/link", "1").file("m/1/link/file", "x").gzip(),
            &["m/1/link/file", "link"],
        ),
        bad("link-circle", good().symlink("m/a", "b").symlink("m/b", "a").gzip(), &["m/a", "circle"]),
        bad("hard-link-out", good().hard_link("m/1/hard", "../../etc/passwd").gzip(), &["m/1/hard", ".."]),
        bad("hard-link-nowhere", good().hard_link("m/1/hard", "m/nothing").gzip(), &["m/1/hard", "m/nothing"]),
        bad("character-device", entry(EntryType::Char, "m/1/null", ""), &["m/1/null", "device"]),
        bad("block-device", entry(EntryType::Block, "m/1/sda", ""), &["m/1/sda", "device"]),
        bad("pipe", entry(EntryType::Fifo, "m/1/pipe", ""), &["m/1/pipe"]),
        bad("setuid", good().file_with_mode("m/1/tool", "x", 0o4755).gzip(), &["m/1/tool", "setuid"]),
        bad("setgid", good().file_with_mode("m/1/tool", "x", 0o2755).gzip(), &["m/1/tool", "setgid"]),
        bad("twice", good().file("m/config.pbtxt", "again").gzip(), &["m/config.pbtxt", "twice"]),
        bad("too-many-files", many.gzip(), &["50", "m/1/"]),
        bad("too-many-bytes", good().file("m/1/big", &zeros).gzip(), &["m/1/big", "bytes"]),
    ]
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_archives_are_refused_once_with_the_entry_and_the_reason() {
    let store = S3Store::start().await;
    store.put("neighbour", &echo());
    let launch = store.launch().option("--max-archive-files", "50").option("--max-archive-size", "2MiB");
    let server = launch.start().await;
    let cases: Vec<_> = damaged().into_iter().chain(hostile()).collect();
    for Bad { target, archive, parts } in &cases {
        store.put(target, archive);
        let first = ask_echo(&server, target, &[1.0]).await;
        assert!((400..500).contains(&first.status) && first.status != 404, "{target}: {first:?}");
        let error = first.error();
        assert_has(&error, parts);
        assert_has(&error, &[target]);
        let second = ask_echo(&server, target, &[1.0]).await;
        assert_eq!((second.status, second.error()), (first.status, error), "{target}");
        // Of an empty object there is nothing to get.
        assert_eq!(store.gets(target), u64::from(!archive.is_empty()), "{target} was fetched again");
        assert_eq!(entries(&launch.disk_cache().join("staging")), 0, "{target} left something behind");
        ask_echo(&server, "neighbour", &[1.0]).await.ok();
    }
    assert!(!Path::new("/etc/panoply-was-here").exists());
    assert_eq!(entries(&launch.disk_cache().join("entries")), 1, "only the neighbour is in the disk cache");
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("panoply_download_failures_total", &[]), cases.len() as f64);

    // With another ETag they are fetched again.
    for Bad { target, .. } in &cases {
        let before = store.gets(target);
        store.put(target, &echo_named("repaired", "R"));
        let answer = ask_echo(&server, target, &[4.0]).await.ok();
        assert_eq!((answer.cache(), answer.numbers("R")), ("store", vec![4.0]), "{target}");
        assert_eq!(store.gets(target), before + 1, "{target}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decompression_bomb_is_stopped_early() {
    let store = S3Store::start().await;
    // Past the first 64 MiB the ratio counts; zeros shrink to less than a fiftieth.
    let bomb = good().file("m/1/bomb", vec![0; 80 << 20]).gzip();
    store.put("bomb", &bomb);
    let launch = store.launch().option("--max-archive-ratio", "50");
    let server = launch.start().await;
    let answer = ask_echo(&server, "bomb", &[1.0]).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_has(&answer.error(), &["bomb", "more than 50 times"]);
    assert_eq!(entries(&launch.disk_cache().join("staging")), 0);
    assert_eq!(server.metrics().await.sum("panoply_disk_cache_bytes", &[]), 0.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_promised_is_verified() {
    let store = S3Store::start().await;
    let archive = good().gzip();
    let wrong = ObjectChecksum::Crc32("AAAAAA==".to_owned());
    store.server.put_with_checksum(&S3Store::key("wrong-sum"), archive.clone(), wrong);
    store.server.put_broken(&S3Store::key("broken"), archive.clone(), archive.len() / 8);
    store.put("neighbour", &echo());
    let launch = store.launch();
    let server = launch.start().await;
    let wrong = ask_echo(&server, "wrong-sum", &[1.0]).await;
    assert!(wrong.status >= 400, "{wrong:?}");
    assert_has(&wrong.error(), &["wrong-sum", "checksum"]);
    let broken = ask_echo(&server, "broken", &[1.0]).await;
    assert_eq!(broken.status, 503, "{broken:?}");
    assert_eq!(entries(&launch.disk_cache().join("staging")), 0);
    ask_echo(&server, "neighbour", &[1.0]).await.ok();
    // A transfer that broke off was not the archive's fault: it is tried again.
    store.put("broken", &archive);
    ask_echo(&server, "broken", &[1.0]).await.ok();
    server.stop().await;
}

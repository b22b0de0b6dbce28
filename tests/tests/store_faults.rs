//! A store on a bad day: errors, connections that break anywhere, silence, wrong lengths and bytes. Whatever happens, no answer
//! is wrong, no model is half visible, the store is not asked more than a bound allows, and all is well soon afterwards.

use std::time::{Duration, Instant};

use e2e::{Asked, Fault, FaultProxy, Launch, S3Store, Server, Store, effort, until};
use futures::future::join_all;
use parking_lot::Mutex;
use test_util::dice::Dice;
use test_util::s3::ObjectChecksum;

use crate::ask_echo;
use crate::downloads::{echo_of, in_parts};

/// Of every archive; some parts long.
const BYTES: usize = 200 << 10;
const TRIES: usize = 4;

fn launch(store: &S3Store, proxy: &FaultProxy) -> Launch {
    in_parts(store.launch_through(proxy.endpoint()))
        .option("--store-read-timeout", "1s")
        .option("--missing-key-ttl", "0s")
}

/// Whether the model answers, and rightly so.
async fn answers(server: &Server, target: &str) -> bool {
    let answer = ask_echo(server, target, &[1.0, 2.0]).await;
    assert!(matches!(answer.status, 200 | 503), "{target}: {answer:?}");
    if answer.status == 200 {
        assert_eq!(answer.numbers("Y"), [1.0, 2.0], "{target}");
    }
    answer.status == 200
}

/// Every directory in the disk cache is whole, and there are so many.
fn assert_whole(launch: &Launch, count: usize) {
    let names = |part: &str| -> Vec<_> {
        let read = std::fs::read_dir(launch.disk_cache().join(part)).expect("a folder");
        read.map(|entry| entry.expect("an entry").path()).collect()
    };
    assert_eq!(names("staging").len(), 0);
    assert_eq!(names("entries").len(), count);
    for entry in names("entries") {
        let weights = walk(&entry).into_iter().find(|file| file.ends_with("m/1/weights")).expect("all of its files");
        assert_eq!(std::fs::metadata(weights).expect("a file").len(), BYTES as u64);
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Each kind of fault, for the first two questions about each archive and the first two requests for parts of it: nobody
/// notices.
#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_not_noticed() {
    let faults = [
        ("internal", Fault::Error(500, "InternalError", None)),
        ("busy", Fault::Error(503, "SlowDown", None)),
        ("later", Fault::Error(503, "SlowDown", Some(1))),
        ("throttled", Fault::Error(429, "TooManyRequests", None)),
        ("refused", Fault::Reset(0)),
        ("in-head", Fault::Reset(40)),
        ("in-body", Fault::Reset(30_000)),
        ("closed", Fault::Close(20_000)),
        ("silent", Fault::Stall(10)),
        ("stalled", Fault::Stall(10_000)),
        ("short", Fault::Shorten(1)),
    ];
    let store = S3Store::start().await;
    for (key, _) in faults {
        store.put(key, &echo_of(BYTES));
    }
    let proxy = FaultProxy::start(store.server.endpoint(), move |asked| {
        let (_, fault) = faults.iter().find(|(key, _)| asked.path.ends_with(&format!("/{key}")))?;
        (asked.earlier < 2).then_some(*fault)
    })
    .await;
    let launch = launch(&store, &proxy);
    let server = launch.start().await;
    let all = join_all(faults.iter().map(|(key, _)| answers(&server, key))).await;
    let failed: Vec<_> = faults.iter().zip(all).filter(|(_, answered)| !answered).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let parts = BYTES.div_ceil(64 << 10) + 1;
    for (key, _) in faults {
        let count = proxy.count(&format!("/{key}"));
        assert!(count <= 1 + parts + 4, "{key}: {count} requests");
    }
    let retries = server.metrics().await.sum("panoply_store_retries_total", &[]);
    assert!(retries >= faults.len() as f64, "{retries}");
    assert_whole(&launch, faults.len());
    server.stop().await;
}

/// Each request fails with a chance of a third.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_anywhere_leave_nothing_half_done() {
    let count = effort(24, 200);
    let store = S3Store::start().await;
    let key = |number: usize| format!("{number}.tar.gz");
    for number in 0..count {
        store.put(&key(number), &echo_of(BYTES));
    }
    let dice = Mutex::new(Dice::new(20_261_122));
    let proxy = FaultProxy::start(store.server.endpoint(), move |asked| {
        let mut dice = dice.lock();
        if dice.below(3) > 0 {
            return None;
        }
        let at = dice.below(if asked.method == "HEAD" { 300 } else { 66_000 });
        Some(match dice.below(4) {
            0 => Fault::Reset(at),
            1 => Fault::Close(at),
            2 => Fault::Shorten(at),
            _ => Fault::Error(500, "InternalError", None),
        })
    })
    .await;
    let launch = launch(&store, &proxy);
    let server = launch.start().await;
    let began = Instant::now();
    let first = join_all((0..count).map(|number| {
        let server = &server;
        async move { answers(server, &key(number)).await }
    }))
    .await;
    let (asked, seconds) = (proxy.asked().len(), began.elapsed().as_secs_f64());
    eprintln!(
        "{} of {count} answered at the first request, {asked} requests to the store in {seconds:.1} s",
        first.iter().filter(|ok| **ok).count()
    );
    // A question and four parts for each archive, and what may be made again: a hundred requests, a fifth of those that
    // succeed, and one a second.
    let needed = 5.0 * count as f64;
    assert!(
        asked as f64 <= needed + 100.0 + needed / 5.0 + seconds,
        "{asked} requests for {count} archives of four parts"
    );
    for number in 0..count {
        let name = key(number);
        until("every model answers", async || answers(&server, &name).await.then_some(())).await;
    }
    assert_whole(&launch, count);
    server.stop().await;
}

/// CRC-32, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_never_become_a_model() {
    let store = S3Store::start().await;
    let archive = echo_of(BYTES);
    let sum = base64(crc32(&archive).to_be_bytes());
    store.server.put_with_checksum(&S3Store::key("summed"), archive.clone(), ObjectChecksum::Crc32(sum));
    store.put("plain", &archive);
    let proxy = FaultProxy::start(store.server.endpoint(), |asked| {
        (asked.method == "GET" && asked.earlier == 1).then_some(Fault::Damage(1234))
    })
    .await;
    let launch = launch(&store, &proxy);
    let server = launch.start().await;
    for target in ["summed", "plain"] {
        let began = Instant::now();
        let answer = ask_echo(&server, target, &[1.0]).await;
        assert!(answer.status >= 400, "{target}: {answer:?}");
        assert_whole(&launch, usize::from(target == "plain"));
        let recovered = async || (ask_echo(&server, target, &[1.0]).await.status == 200).then_some(());
        until("the archive is fetched again after its back-off of a second", recovered).await;
        eprintln!("{target}: well after {:?}", began.elapsed());
    }
    assert_whole(&launch, 2);
    server.stop().await;
}

/// Base64 of four bytes.
fn base64(bytes: [u8; 4]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let number = bytes.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)) << 4;
    let digit = |place: u32| char::from(DIGITS[(number >> (6 * place)) as usize & 63]);
    (0..6).rev().map(digit).chain("==".chars()).collect()
}

/// A store that fails for everybody: each request is refused, what is in memory goes on, and the store is not asked four times
/// for each request just because it is down.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_is_no_storm_and_comes_back() {
    const COLD: usize = 64;
    let store = S3Store::start().await;
    for number in 0..COLD {
        store.put(&format!("cold-{number}"), &echo_of(BYTES));
    }
    store.put("hot", &echo_of(BYTES));
    let proxy = FaultProxy::start(store.server.endpoint(), |_| None).await;
    let launch = launch(&store, &proxy);
    let server = launch.start().await;
    assert!(answers(&server, "hot").await);
    proxy.set(|_: &Asked| Some(Fault::Error(503, "SlowDown", None)));
    let (before, began) = (proxy.asked().len(), Instant::now());
    let cold = join_all((0..2 * COLD).map(|number| {
        let server = &server;
        async move { answers(server, &format!("cold-{}", number % COLD)).await }
    }));
    let hot = async {
        for _ in 0..50 {
            assert!(answers(&server, "hot").await, "what is in memory needs no store");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (cold, ()) = futures::join!(cold, hot);
    assert!(cold.iter().all(|answered| !answered));
    let (asked, seconds) = (proxy.asked().len() - before, began.elapsed().as_secs_f64());
    eprintln!("{asked} requests for {COLD} archives in {seconds:.1} s");
    // One each (two, where a flight had ended before its second passenger came), and the budget.
    assert!(asked as f64 <= 2.0 * COLD as f64 + 101.0 + seconds, "{asked} requests");
    assert!(asked < COLD * TRIES, "{asked} requests");
    assert_whole(&launch, 1);

    proxy.set(|_: &Asked| None);
    let healed = Instant::now();
    for answered in join_all((0..COLD).map(|number| {
        let server = &server;
        async move { answers(server, &format!("cold-{number}")).await }
    }))
    .await
    {
        assert!(answered, "at the first request: nothing waits for the store to be trusted again");
    }
    eprintln!("{COLD} archives {:?} after the store came back", healed.elapsed());
    assert_whole(&launch, COLD + 1);
    server.stop().await;
}

//! Whole downloads from a store that fails by a script.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use inference::{BoxFuture, Error, Result, TargetModel};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;
use crate::store::resume::{Ranges, TryBytes, TryLimits, read_range};
use crate::store::retrier::{Failed, Retrier, Try};
use crate::store::retry::Fault;
use crate::store::{ModelStore, ObjectBytes, ObjectInfo};

/// What one request to the store meets.
#[derive(Clone, Copy, Debug)]
enum Meets {
    Nothing,
    Refusal(Fault),
    /// After so many bytes.
    Reset(usize),
    Silence(usize),
    EarlyEnd(usize),
    TooMuch,
    Slowness,
}

const TRIES: u32 = 3;
const LIMITS: TryLimits = TryLimits { silence: Duration::from_secs(3), whole: Duration::from_secs(5) };
const CHUNK_BYTES: usize = 5;

#[derive(Clone)]
struct Scripted(Arc<Script>);

struct Script {
    content: Bytes,
    meets: Mutex<VecDeque<Meets>>,
    requests: AtomicUsize,
    retrier: Arc<Retrier>,
}

impl Scripted {
    fn new(content: Bytes, meets: Vec<Meets>) -> Self {
        let (meets, requests) = (Mutex::new(meets.into()), AtomicUsize::new(0));
        let retrier = Arc::new(Retrier::new(TRIES, Duration::from_secs(60)));
        Scripted(Arc::new(Script { content, meets, requests, retrier }))
    }

    fn open_once(&self, range: Range<u64>) -> Try<TryBytes> {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        let meets = self.0.meets.lock().pop_front().unwrap_or(Meets::Nothing);
        let index = |at: u64| usize::try_from(at).expect("small");
        let bytes = self.0.content.slice(index(range.start)..index(range.end));
        let (kept, end) = match meets {
            Meets::Refusal(fault) => return Err(Failed { error: Error::unavailable("refused"), fault }),
            Meets::Reset(after) => (after, stream::iter([Err(Failed::passing(self.broken("reset")))]).boxed()),
            Meets::Silence(after) => (after, stream::pending().boxed()),
            Meets::EarlyEnd(after) => (after, stream::empty().boxed()),
            Meets::TooMuch => (bytes.len(), stream::iter([Ok(Bytes::from_static(b"more"))]).boxed()),
            Meets::Nothing | Meets::Slowness => (bytes.len(), stream::empty().boxed()),
        };
        // Parts differ in speed, so that they overtake each other.
        let delay = if matches!(meets, Meets::Slowness) { 2000 } else { range.start % 7 };
        let kept = bytes.slice(..kept.min(bytes.len()));
        let chunks: Vec<Bytes> = kept.chunks(CHUNK_BYTES).map(Bytes::copy_from_slice).collect();
        let chunks = stream::iter(chunks).then(move |chunk| async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            Ok(chunk)
        });
        Ok(chunks.chain(end).boxed())
    }
}

impl Ranges for Scripted {
    fn open(&self, range: Range<u64>) -> BoxFuture<'_, Try<TryBytes>> {
        Box::pin(async move { self.open_once(range) })
    }

    fn broken(&self, why: &str) -> Error {
        Error::unavailable(why)
    }
}

impl ModelStore for Scripted {
    fn location(&self) -> &str {
        "a script"
    }

    fn missing(&self, target: &TargetModel) -> Error {
        Error::not_found(format!("no '{target}'"))
    }

    fn head<'a>(&'a self, _: &'a TargetModel) -> BoxFuture<'a, Result<ObjectInfo>> {
        let size = self.0.content.len() as u64;
        Box::pin(async move { Ok(ObjectInfo { etag: "1".into(), size, checksum: None }) })
    }

    fn get<'a>(
        &'a self,
        _: &'a TargetModel,
        _: &'a ObjectInfo,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<ObjectBytes>> {
        Box::pin(read_range(Arc::new(self.clone()), range, self.0.retrier.clone(), LIMITS))
    }
}

/// Everything that a download passes on, and how it ends.
async fn download(store: &Scripted, part_size: u64, parts: usize, bandwidth: Option<u64>) -> (Vec<u8>, Result<()>) {
    let downloads = Downloads::new(DownloadConfig {
        part_size: part_size.try_into().expect("not zero"),
        parts: parts.try_into().expect("not zero"),
        bandwidth: bandwidth.map(|rate| rate.try_into().expect("not zero")),
        ..DownloadConfig::default()
    });
    let target = TargetModel::new("a.tar.gz").expect("valid");
    let info = store.head(&target).await.expect("there");
    let download = Download { store: Arc::new(store.clone()), target, info, urgency: Priority::Interactive.into() };
    let (sender, mut receiver) = mpsc::channel(2);
    let run = async {
        downloads.run(download, &sender).await;
        drop(sender);
    };
    let collect = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(error) => return (bytes, Err(error)),
            }
        }
        (bytes, Ok(()))
    };
    futures::join!(run, collect).1
}

fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test)
}

fn meets() -> impl Strategy<Value = Meets> {
    prop_oneof![
        4 => Just(Meets::Nothing),
        1 => Just(Meets::Refusal(Fault::Passing)),
        1 => (0..3u64).prop_map(|seconds| Meets::Refusal(Fault::Busy(Some(Duration::from_secs(seconds))))),
        2 => (0..60usize).prop_map(Meets::Reset),
        1 => (0..60usize).prop_map(Meets::Silence),
        1 => (0..60usize).prop_map(Meets::EarlyEnd),
        1 => Just(Meets::TooMuch),
        1 => Just(Meets::Slowness),
    ]
}

proptest! {
    /// Whatever happens to requests, the exact bytes come in order, or some of them and an error.
    #[test]
    fn all_bytes_come_in_order_or_an_error(
        length in 0..400usize,
        part_size in 1..100u64,
        parts in 1..9usize,
        bandwidth in prop::option::of(10..1000u64),
        script in prop::collection::vec(meets(), 0..20),
    ) {
        let content = content(length);
        let failures = script.iter().filter(|meets| !matches!(meets, Meets::Nothing | Meets::TooMuch)).count();
        let store = Scripted::new(content.clone(), script);
        let (bytes, end) = paused(download(&store, part_size, parts, bandwidth));
        prop_assert!(content.starts_with(&bytes));
        prop_assert!(end.is_err() || bytes.len() == content.len());
        prop_assert!(end.is_ok() || failures >= TRIES as usize, "{:?}", end);
        let parts = content.len().div_ceil(usize::try_from(part_size).expect("small"));
        prop_assert!(store.0.requests.load(Ordering::SeqCst) <= parts * TRIES as usize);
    }
}

#[test]
fn what_the_store_means_is_not_asked_again() {
    let store = Scripted::new(content(10), vec![Meets::Refusal(Fault::Lasting)]);
    assert_eq!(paused(download(&store, 10, 1, None)).1.expect_err("refused").message(), "refused");
    assert_eq!(store.0.requests.load(Ordering::SeqCst), 1);
}

#[test]
fn a_download_that_goes_on_may_break_off_more_often_than_one_that_does_not() {
    let length = 4 << 20;
    let store = Scripted::new(content(length), vec![Meets::Reset(300 << 10); 12]);
    let (bytes, end) = paused(download(&store, length as u64, 1, None));
    assert!(end.is_ok() && bytes == content(length), "{end:?}");
    assert_eq!(store.0.requests.load(Ordering::SeqCst), 13, "the rest was asked for each time");
}

#[test]
fn retries_of_all_downloads_together_are_bounded() {
    let store = Scripted::new(content(10), vec![Meets::Refusal(Fault::Passing); 10_000]);
    let requests = paused(async {
        let downloads: Vec<_> = (0..1000).map(|_| download(&store, 10, 1, None)).collect();
        for (_, end) in futures::future::join_all(downloads).await {
            end.expect_err("all fail");
        }
        store.0.requests.load(Ordering::SeqCst)
    });
    assert!((1000..=1110).contains(&requests), "{requests} requests of 1000 downloads");
}

//! `kill -9` at any moment of a download, of unpacking, of an archive's appearance in the disk cache or its departure
//! leaves a cache that is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::{Config, Http, Launch, S3Store, Server, Store, effort, fp32, infer, padding};
use test_util::archive::ArchiveBuilder;
use test_util::dice::Dice;

use crate::ask_echo;

const ARCHIVES: usize = 6;
/// Three of the archives fit: others are fetched while some are removed.
const CAPACITY: &str = "3800KiB";
/// The longest that a moment is waited for.
const LONGEST: Duration = Duration::from_secs(3);

fn target(number: usize) -> String {
    format!("model-{number}.tar.gz")
}

/// The files of an archive.
fn files(number: usize) -> BTreeMap<PathBuf, Vec<u8>> {
    let model = format!("model-{number}");
    let config = Config::new(&model, "identity").input("X", "FP32", "-1").output(&format!("Y{number}"), "FP32", "-1");
    let padding = padding((1 << 20) + number);
    let (first, second) = padding.split_at(300_000);
    [("config.pbtxt", config.text().as_bytes()), ("1/first.bin", first), ("1/deep/second.bin", second)]
        .map(|(path, content)| (Path::new(&model).join(path), content.to_vec()))
        .into()
}

fn archive(files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<u8> {
    let add = |archive: ArchiveBuilder, (path, content): (&PathBuf, &Vec<u8>)| {
        archive.file(path.to_str().expect("a name in ASCII"), content)
    };
    files.iter().fold(ArchiveBuilder::new(), add).gzip()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// When a server is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Any.
    After(Duration),
    /// Something is being unpacked.
    Unpacking,
    /// An archive is complete, and being flushed to the disk or moved to its place.
    Publishing,
    /// An archive has come to its place, or has just left it.
    Changed,
}

impl Moment {
    fn of(round: usize, dice: &mut Dice) -> Self {
        match round % 4 {
            0 => Moment::After(Duration::from_secs_f64(dice.share())),
            1 => Moment::Unpacking,
            2 => Moment::Publishing,
            _ => Moment::Changed,
        }
    }

    /// Waits for the moment to come, looking as often as can be. Blocks. A moment that does not come is any moment.
    fn wait(self, cache: &Path) {
        let (start, entries) = (Instant::now(), cache.join("entries"));
        let before = children(&entries);
        let staged = || children(&cache.join("staging"));
        let has_come = || match self {
            Moment::After(delay) => start.elapsed() >= delay,
            Moment::Unpacking => !staged().is_empty(),
            Moment::Publishing => staged().iter().any(|directory| directory.join("archive.json").exists()),
            Moment::Changed => children(&entries) != before,
        };
        while !has_come() && start.elapsed() < LONGEST {
            std::thread::yield_now();
        }
    }
}

/// Asserts that a server that has just started has a cache of complete archives only; how many.
fn assert_is_whole(cache: &Path, expected: &BTreeMap<String, BTreeMap<PathBuf, Vec<u8>>>) -> usize {
    assert_eq!(children(&cache.join("staging")), [] as [PathBuf; 0], "what a crash left behind is removed");
    let entries = children(&cache.join("entries"));
    for entry in &entries {
        let about = std::fs::read(entry.join("archive.json")).expect("an entry says what it is");
        let about: serde_json::Value = serde_json::from_slice(&about).expect("and is written to its end");
        let target = about["target"].as_str().expect("which archive it is");
        for (path, content) in &expected[target] {
            let file = entry.join("tree").join(path);
            let found = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert!(found == *content, "{} has {} bytes of {}", file.display(), found.len(), content.len());
        }
    }
    entries.len()
}

/// Asks for every archive at once, until the server is gone. What is answered must be right.
async fn ask_all_until_killed(server: Server, cache: PathBuf, moment: Moment, dice: &mut Dice) {
    let url = server.url("/invocations");
    let numbers: Vec<_> = (0..ARCHIVES).map(|_| dice.below(ARCHIVES)).collect();
    let ask = |number| tokio::spawn(ask_until_killed(url.clone(), number));
    let asking: Vec<_> = numbers.into_iter().map(ask).collect();
    tokio::task::spawn_blocking(move || moment.wait(&cache)).await.expect("nothing to panic about");
    server.kill().await;
    for asked in asking {
        asked.await.expect("every answer is right");
    }
}

async fn ask_until_killed(url: String, number: usize) {
    let (http, target) = (Http::new(), target(number));
    let headers = [("x-amzn-sagemaker-target-model", target.as_str())];
    let body = infer(&[fp32("X", &[1.5])]).to_string();
    while let Ok(answer) = http.try_send(http::Method::POST, &url, &headers, body.clone()).await {
        // 503: all that is on disk is in use at this moment.
        if answer.status != 503 {
            assert_eq!(answer.ok().numbers(&format!("Y{number}")), [1.5]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_at_any_moment_starts_with_a_whole_cache() {
    let store = S3Store::start().await;
    let expected: BTreeMap<_, _> = (0..ARCHIVES).map(|number| (target(number), files(number))).collect();
    expected.iter().for_each(|(target, files)| store.put(target, &archive(files)));
    let launch: Launch = store.launch().option("--disk-cache-size", CAPACITY);
    let (cache, mut dice) = (launch.disk_cache(), Dice::new(9));
    let (mut staged, mut complete) = (0, 0);
    let rounds = effort(16, 200);
    for round in 0..rounds {
        let server = launch.start().await;
        complete += assert_is_whole(&cache, &expected);
        let moment = Moment::of(round, &mut dice);
        ask_all_until_killed(server, cache.clone(), moment, &mut dice).await;
        staged += children(&cache.join("staging")).len();
    }
    println!("{rounds} rounds: {staged} archives were cut, {complete} found complete");
    assert!(staged > 0, "no moment was a bad one");
    assert!(complete > 0, "nothing was ever kept");
    let server = launch.start().await;
    assert_is_whole(&cache, &expected);
    for number in 0..ARCHIVES {
        let answer = ask_echo(&server, &target(number), &[-0.5]).await.ok();
        assert_eq!(answer.numbers(&format!("Y{number}")), [-0.5]);
    }
    server.stop().await;
}

//! What the first request for an archive takes: from a store with empty caches, from the disk cache after a restart, and
//! from memory.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use benches::arguments::Arguments;
use benches::http::Connection;
use benches::server::{Server, Store};
use benches::server_timing::LoadTiming;
use benches::statistics::median;
use benches::table::{Table, figure, spread};
use benches::{dense, machine, payload, server};
use tempfile::TempDir;
use test_util::archive::ArchiveBuilder;
use test_util::s3::MemoryS3;
use tokio::runtime::Runtime;

/// The prefix in the bucket.
const PREFIX: &str = "demo";
/// How many requests find the model in memory, for their median.
const MEMORY_HITS: usize = 20;
/// How often everything is repeated.
const REPETITIONS: usize = 7;
/// An archive made here: one layer of 512 × 512, 1 MiB of weights.
const DENSE: &str = "dense-1-mib.tar.gz";
const DENSE_WIDTH: usize = 512;

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let binary = server::build()?;
    let (archives, bucket) = (archives()?, Bucket::start()?);
    let folder = TempDir::new().context("there is no place for archives")?;
    let stores = [("folder", fill(folder.path(), &archives)?), ("S3", bucket.fill(&archives))];
    let mut rows: Vec<Row> = stores.iter().flat_map(|store| rows(&archives, store)).collect();
    let repetitions = if arguments.quick { 1 } else { REPETITIONS };
    println!(
        "\n## cold_start\n\n{}\n\n{}, before; {repetitions} repetitions",
        machine::description(),
        machine::moment()
    );
    for repetition in 1..=repetitions {
        eprintln!("cold_start: repetition {repetition} of {repetitions}");
        for row in &mut rows {
            row.measure(&binary).with_context(|| format!("{} from {}", row.archive.name, row.place))?;
        }
    }
    println!("\n{}\n{}, after", table(&rows).markdown(), machine::moment());
    let starts = rows.iter().flat_map(|row| &row.samples).map(|sample| sample.start);
    println!("\nFrom the server's start to readiness, median: {} ms", figure(median(starts)));
    Ok(())
}

/// An archive, and a request for it.
struct Archive {
    name: &'static str,
    content: Vec<u8>,
    request: Vec<u8>,
}

/// Those of the demo, and one of a single ONNX layer with 1 MiB of weights.
fn archives() -> Result<Vec<Archive>> {
    let demo = |name, request| Ok::<_, anyhow::Error>(Archive { name, content: from_the_demo(name)?, request });
    let dense = ArchiveBuilder::new().file("dense/1/model.onnx", dense::model(1, DENSE_WIDTH)).gzip();
    Ok(vec![
        demo("minilm.tar.gz", payload::sentences_http("minilm.tar.gz"))?,
        demo("minilm-int8.tar.gz", payload::sentences_http("minilm-int8.tar.gz"))?,
        demo("mobilenet.tar.gz", payload::photo_http()?)?,
        Archive { name: DENSE, content: dense, request: payload::row_http(DENSE, DENSE_WIDTH) },
        demo("identity.tar.gz", payload::identity_http(&payload::numbers(4)))?,
    ])
}

fn from_the_demo(name: &str) -> Result<Vec<u8>> {
    let file = test_util::artifacts().join("demo-store").join(name);
    fs::read(&file).with_context(|| format!("no {}: run `cargo xtask setup`", file.display()))
}

fn fill(folder: &Path, archives: &[Archive]) -> Result<Store> {
    for archive in archives {
        fs::write(folder.join(archive.name), &archive.content).context("there is no place for archives")?;
    }
    Ok(Store::Folder(folder.to_owned()))
}

/// An S3 server in this process.
struct Bucket {
    server: MemoryS3,
    // Its tasks run here; ends after it.
    _runtime: Runtime,
}

impl Bucket {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Bucket { server: runtime.block_on(MemoryS3::start()), _runtime: runtime })
    }

    fn fill(&self, archives: &[Archive]) -> Store {
        for archive in archives {
            self.server.put(&format!("{PREFIX}/{}", archive.name), archive.content.clone());
        }
        let location = format!("{}/{PREFIX}", MemoryS3::BUCKET);
        Store::S3 { endpoint: self.server.endpoint().to_owned(), location }
    }
}

/// One archive from one store.
struct Row<'a> {
    archive: &'a Archive,
    place: &'static str,
    store: &'a Store,
    samples: Vec<Sample>,
}

/// One repetition; milliseconds, as the client saw them where nothing else is said.
struct Sample {
    start: f64,
    cold: f64,
    cold_parts: LoadTiming,
    disk: f64,
    disk_parts: LoadTiming,
    memory: f64,
}

fn rows<'a>(archives: &'a [Archive], (place, store): &'a (&'static str, Store)) -> impl Iterator<Item = Row<'a>> {
    archives.iter().map(move |archive| Row { archive, place, store, samples: Vec::new() })
}

impl Row<'_> {
    fn measure(&mut self, binary: &Path) -> Result<()> {
        let disk_cache = TempDir::new().context("there is no place for a disk cache")?;
        let begun = Instant::now();
        let server = Server::start(binary, self.store, disk_cache.path())?;
        let start = milliseconds(begun);
        let mut connection = Connection::open(server.address())?;
        let (cold, cold_parts) = self.ask(&mut connection, "store")?;
        let hits = (0..MEMORY_HITS).map(|_| Ok(self.ask(&mut connection, "memory")?.0));
        let memory = median(hits.collect::<Result<Vec<_>>>()?);
        drop(server);
        let server = Server::start(binary, self.store, disk_cache.path())?;
        let (disk, disk_parts) = self.ask(&mut Connection::open(server.address())?, "disk")?;
        self.samples.push(Sample { start, cold, cold_parts, disk, disk_parts, memory });
        Ok(())
    }

    /// One request, which must find its model in this tier: what it took, and what the server says about it.
    fn ask(&self, connection: &mut Connection, tier: &str) -> Result<(f64, LoadTiming)> {
        let begun = Instant::now();
        let answer = connection.exchange(&self.archive.request)?;
        let took = milliseconds(begun);
        ensure!(answer.status == 200, "status {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        let found = answer.header("x-panoply-cache").unwrap_or_default();
        ensure!(found == tier, "the model was found in '{found}' and not in '{tier}'");
        let parts = answer.header("server-timing").and_then(LoadTiming::parse);
        ensure!(parts.is_some() || tier == "memory", "the answer has no Server-Timing");
        Ok((took, parts.unwrap_or_default()))
    }

    fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(figure))
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn table(rows: &[Row<'_>]) -> Table {
    let mut table = Table::new(&[
        "ms",
        "MB",
        "store",
        "cold",
        "(repetitions)",
        "download",
        "unpack",
        "load",
        "rest",
        "from disk",
        "load",
        "rest",
        "from memory",
    ]);
    for row in rows {
        let size = row.archive.content.len() as f64 / 1e6;
        let mut cells = vec![row.archive.name.to_owned(), figure(size), row.place.to_owned()];
        cells.push(figure(row.median(|sample| sample.cold)));
        cells.push(spread(row.samples.iter().map(|sample| sample.cold)));
        let figures: [fn(&Sample) -> f64; 8] = [
            |sample| sample.cold_parts.download,
            |sample| sample.cold_parts.unpack,
            |sample| sample.cold_parts.load,
            |sample| sample.cold - sample.cold_parts.total(),
            |sample| sample.disk,
            |sample| sample.disk_parts.load,
            |sample| sample.disk - sample.disk_parts.total(),
            |sample| sample.memory,
        ];
        cells.extend(figures.map(|of| figure(row.median(of))));
        table.row(cells);
    }
    table
}

//! Unpacking: what the disk cache takes for an archive from a folder (read, gunzip, untar, write, flush, rename), what
//! gunzip alone takes with the library that it uses, and what gunzip alone takes with zlib-ng, in turn.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use benches::arguments::Arguments;
use benches::machine;
use benches::statistics::median;
use benches::table::{Table, figure, spread};
use flate2::bufread::MultiGzDecoder;
use inference::TargetModel;
use repository::{DiskCache, DiskCacheConfig, FolderStore, ModelStore, Priority, Urgency};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Archives of the demo, each with weights of another kind: float, int8, float.
const ARCHIVES: [&str; 3] = ["minilm.tar.gz", "minilm-int8.tar.gz", "mobilenet.tar.gz"];
const REPETITIONS: usize = 9;
const BUFFER_BYTES: usize = 256 * 1024;

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let repetitions = if arguments.quick { 1 } else { REPETITIONS };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = ARCHIVES.into_iter().map(Row::new).collect::<Result<Vec<_>>>()?;
    println!("\n## unpack\n\n{}\n\n{}, before; {repetitions} repetitions", machine::description(), machine::moment());
    for repetition in 1..=repetitions {
        eprintln!("unpack: repetition {repetition} of {repetitions}");
        for row in &mut rows {
            row.measure(&runtime).with_context(|| row.name.to_owned())?;
        }
    }
    println!("\n{}\n{}, after", table(&rows).markdown(), machine::moment());
    Ok(())
}

fn folder() -> PathBuf {
    test_util::artifacts().join("demo-store")
}

/// An archive, and the seconds that each contender took.
struct Row {
    name: &'static str,
    compressed: Vec<u8>,
    unpacked: u64,
    cache: Vec<f64>,
    gunzip: Vec<f64>,
    zlib_ng: Vec<f64>,
}

impl Row {
    fn new(name: &'static str) -> Result<Self> {
        let file = folder().join(name);
        let compressed = fs::read(&file).with_context(|| format!("no {}: run `cargo xtask setup`", file.display()))?;
        Ok(Row { name, compressed, unpacked: 0, cache: Vec::new(), gunzip: Vec::new(), zlib_ng: Vec::new() })
    }

    fn measure(&mut self, runtime: &Runtime) -> Result<()> {
        let (seconds, bytes) = gunzip(&self.compressed)?;
        self.gunzip.push(seconds);
        self.unpacked = bytes;
        let (seconds, bytes) = zlib_ng(&folder().join(self.name))?;
        ensure!(bytes == self.unpacked, "zlib-ng gives {bytes} bytes and zlib-rs {}", self.unpacked);
        self.zlib_ng.push(seconds);
        self.cache.push(runtime.block_on(fetch(self.name))?);
        Ok(())
    }
}

/// Seconds, and the bytes that came out.
fn gunzip(compressed: &[u8]) -> Result<(f64, u64)> {
    let begun = Instant::now();
    let (mut decoder, mut buffer, mut bytes) = (MultiGzDecoder::new(compressed), vec![0; BUFFER_BYTES], 0);
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return Ok((begun.elapsed().as_secs_f64(), bytes)),
            Ok(count) => bytes += count as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The same by zlib-ng, in a process of its own that times itself.
fn zlib_ng(file: &Path) -> Result<(f64, u64)> {
    let python = test_util::artifacts().join("venv-bench/bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/gunzip_zlib_ng.py");
    let output = Command::new(&python).arg(script).arg(file).output();
    let output = output.with_context(|| format!("no {}: run `cargo xtask bench unpack`", python.display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout)?;
    let (seconds, bytes) = printed.trim().split_once(' ').context("the script prints two figures")?;
    Ok((seconds.parse()?, bytes.parse()?))
}

/// Seconds until an archive is whole in an empty disk cache.
async fn fetch(name: &str) -> Result<f64> {
    let place = TempDir::new().context("there is no place for a disk cache")?;
    let store: Arc<dyn ModelStore> = Arc::new(FolderStore::open(&folder())?);
    let cache = DiskCache::open(DiskCacheConfig::new(place.path(), u64::MAX), store.location())?;
    let target = TargetModel::new(name)?;
    let info = store.head(&target).await?;
    let begun = Instant::now();
    let (archive, _) = cache.fetch(&store, &target, &info, &Urgency::from(Priority::Interactive)).await?;
    let seconds = begun.elapsed().as_secs_f64();
    drop(archive);
    Ok(seconds)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "unpacked MB/s",
        "MB",
        "MB unpacked",
        "disk cache, all of it",
        "(repetitions)",
        "gunzip alone",
        "zlib-ng, gunzip alone",
        "disk cache : zlib-ng",
        "gunzip : zlib-ng",
    ]);
    for row in rows {
        let megabytes = row.unpacked as f64 / 1e6;
        let rate = |seconds: &[f64]| megabytes / median(seconds.iter().copied());
        let (cache, own, other) = (rate(&row.cache), rate(&row.gunzip), rate(&row.zlib_ng));
        let mut cells = vec![row.name.to_owned(), figure(row.compressed.len() as f64 / 1e6), figure(megabytes)];
        cells.extend([figure(cache), spread(row.cache.iter().map(|seconds| megabytes / seconds))]);
        cells.extend([own, other, cache / other, own / other].map(figure));
        table.row(cells);
    }
    table
}

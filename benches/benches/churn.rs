//! What a model in memory feels of others: its p50 and p99 while nothing else happens, and while one client after the other
//! asks for a model that has to be loaded from disk and another evicted for it; with loads at several priorities, in turn.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use benches::arguments::Arguments;
use benches::http::Connection;
use benches::load::{Client, Duty, run};
use benches::server::{Server, Store};
use benches::statistics::{Round, median};
use benches::table::{Table, figure};
use benches::{machine, payload, server};
use tempfile::TempDir;

/// `--load-niceness`; 0 is the priority of requests.
const NICENESS: [&str; 3] = ["0", "10", "19"];
/// Archives of 21 MB that are asked for in turn; of these, one or two fit beside the models that are measured.
const OTHERS: usize = 5;
const MODEL_MEMORY: &str = "110MiB";

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let (rounds, duty) = effort(arguments.quick);
    let folder = TempDir::new().context("there is no place for archives")?;
    let store = Store::Folder(archives(folder.path())?);
    let binary = server::build()?;
    let start = |niceness| Contender::start(&binary, &store, niceness, folder.path());
    let mut contenders = NICENESS.into_iter().map(start).collect::<Result<Vec<_>>>()?;
    println!("\n## churn\n\n{}\n\n{}, before; {rounds} rounds", machine::description(), machine::moment());
    for round in 1..=rounds {
        eprintln!("churn: round {round} of {rounds}");
        for model in 0..models()?.len() {
            contenders.iter_mut().try_for_each(|contender| contender.measure(model, duty))?;
        }
    }
    println!("\n{}\n{}, after", table(&contenders)?.markdown(), machine::moment());
    Ok(())
}

fn effort(quick: bool) -> (usize, Duty) {
    let duty =
        |warm_up, measure| Duty { warm_up: Duration::from_millis(warm_up), measure: Duration::from_secs(measure) };
    if quick { (1, duty(200, 1)) } else { (7, duty(500, 5)) }
}

/// The models that are measured, and a request for each.
fn models() -> Result<[(&'static str, Vec<u8>); 2]> {
    Ok([("identity", payload::identity_http(&payload::numbers(4))), ("mobilenet", payload::photo_http()?)])
}

fn other(number: usize) -> String {
    format!("other-{}.tar.gz", number % OTHERS)
}

/// A store with the models that are measured, and one model under several names.
fn archives(folder: &Path) -> Result<std::path::PathBuf> {
    let (demo, store) = (test_util::artifacts().join("demo-store"), folder.join("store"));
    fs::create_dir(&store)?;
    let copy = |from: &str, to: &str| {
        std::os::unix::fs::symlink(demo.join(from), store.join(to)).with_context(|| format!("no {from} in the store"))
    };
    ["identity.tar.gz", "mobilenet.tar.gz"].into_iter().try_for_each(|name| copy(name, name))?;
    (0..OTHERS).try_for_each(|number| copy("minilm-int8.tar.gz", &other(number)))?;
    Ok(store)
}

/// A server whose loads have one priority, and what was measured of it: for each model, in rounds.
struct Contender {
    niceness: &'static str,
    server: Server,
    next: usize,
    samples: [Vec<Sample>; 2],
}

struct Sample {
    quiet: Round,
    churned: Round,
    loads_per_second: f64,
}

impl Contender {
    fn start(binary: &Path, store: &Store, niceness: &'static str, folder: &Path) -> Result<Self> {
        let options = ["--load-niceness", niceness, "--model-memory", MODEL_MEMORY];
        let server = Server::start_with(binary, store, &folder.join(format!("cache-{niceness}")), &options)?;
        let mut connection = Connection::open(server.address())?;
        // All on disk from here on.
        for request in (0..OTHERS).map(|number| payload::sentences_http(&other(number))) {
            ensure!(connection.exchange(&request)?.status == 200, "a model cannot be loaded");
        }
        Ok(Contender { niceness, server, next: 0, samples: Default::default() })
    }

    fn measure(&mut self, model: usize, duty: Duty) -> Result<()> {
        let mut client = self.client(model)?;
        let quiet = run(&mut client, duty, self.server.process())?;
        let (stop, address, first, began) = (AtomicBool::new(false), self.server.address(), self.next, Instant::now());
        let (churned, loads) = thread::scope(|scope| {
            let churn = scope.spawn(|| churn(address, first, &stop));
            let churned = run(&mut client, duty, self.server.process());
            stop.store(true, Ordering::Relaxed);
            (churned, churn.join())
        });
        let loads = loads.ok().context("the churning client panicked")??;
        self.next += loads;
        let loads_per_second = loads as f64 / began.elapsed().as_secs_f64();
        self.samples[model].push(Sample { quiet, churned: churned?, loads_per_second });
        Ok(())
    }

    fn client(&self, model: usize) -> Result<[Box<dyn Client>; 1]> {
        let (_, request) = models()?.into_iter().nth(model).context("there is no such model")?;
        let mut asking = Asking { connection: Connection::open(self.server.address())?, request };
        asking.call().context("the model that is measured cannot be loaded")?;
        Ok([Box::new(asking)])
    }

    fn median(&self, model: usize, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples[model].iter().map(figure))
    }
}

/// Asks for one model after the other; each has to be loaded. How many were.
fn churn(address: SocketAddr, first: usize, stop: &AtomicBool) -> Result<usize> {
    let mut connection = Connection::open(address)?;
    let mut loads = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = connection.exchange(&payload::sentences_http(&other(first + loads)))?;
        ensure!(answer.status == 200, "status {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        let tier = answer.header("x-panoply-cache").unwrap_or_default();
        ensure!(tier == "disk", "a model was to be loaded, and was in {tier}");
        loads += 1;
    }
    Ok(loads)
}

struct Asking {
    connection: Connection,
    request: Vec<u8>,
}

impl Client for Asking {
    fn call(&mut self) -> Result<()> {
        let answer = self.connection.exchange(&self.request)?;
        ensure!(answer.status == 200, "status {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        Ok(())
    }
}

fn table(contenders: &[Contender]) -> Result<Table> {
    let columns =
        ["µs", "--load-niceness", "quiet p50", "p99", "churn p50", "p99", "p50 ratio", "p99 ratio", "loads/s"];
    let mut table = Table::new(&columns);
    for (model, (name, _)) in models()?.into_iter().enumerate() {
        for contender in contenders {
            let figures: [fn(&Sample) -> f64; 7] = [
                |sample| sample.quiet.p50,
                |sample| sample.quiet.p99,
                |sample| sample.churned.p50,
                |sample| sample.churned.p99,
                |sample| sample.churned.p50 / sample.quiet.p50,
                |sample| sample.churned.p99 / sample.quiet.p99,
                |sample| sample.loads_per_second,
            ];
            let mut cells = vec![name.to_owned(), contender.niceness.to_owned()];
            cells.extend(figures.map(|of| figure(contender.median(model, of))));
            table.row(cells);
        }
    }
    Ok(table)
}

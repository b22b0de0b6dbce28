//! What a step of an ensemble costs: chains of `identity` models of growing length behind one request, in turn.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use benches::arguments::Arguments;
use benches::http::Connection;
use benches::load::{Client, Duty, run};
use benches::server::{Server, Store};
use benches::statistics::{Round, median};
use benches::table::{Table, figure};
use benches::{machine, payload, server};
use tempfile::TempDir;
use test_util::archive::ArchiveBuilder;

/// Steps of each chain.
const STEPS: [usize; 5] = [1, 2, 4, 8, 16];
/// How many clients at once.
const CLIENTS: [usize; 2] = [1, 4];
/// Requests by their numbers, 4 bytes each.
const SIZES: [(&str, usize); 2] = [("16 B", 4), ("600 KB", 3 * 224 * 224)];

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let (rounds, duty) = effort(arguments.quick);
    let folder = TempDir::new().context("there is no place for archives")?;
    let store = folder.path().join("store");
    fs::create_dir(&store)?;
    write_archives(&store)?;
    let panoply = Server::start(&server::build()?, &Store::Folder(store), &folder.path().join("cache"))?;
    let mut rows = rows();
    println!("\n## ensemble\n\n{}\n\n{}, before; {rounds} rounds", machine::description(), machine::moment());
    for round in 1..=rounds {
        eprintln!("ensemble: round {round} of {rounds}");
        for row in &mut rows {
            row.measure(&panoply, duty)?;
        }
    }
    println!("\n{}\n{}, after", table(&rows).markdown(), machine::moment());
    Ok(())
}

fn effort(quick: bool) -> (usize, Duty) {
    let duty =
        |warm_up, measure| Duty { warm_up: Duration::from_millis(warm_up), measure: Duration::from_millis(measure) };
    if quick { (1, duty(50, 200)) } else { (5, duty(200, 1000)) }
}

/// A size of request and a number of clients: the model alone, then each chain, round by round.
struct Row {
    size: &'static str,
    numbers: usize,
    clients: usize,
    alone: Vec<Round>,
    /// One per entry of [`STEPS`].
    chains: Vec<Vec<Round>>,
}

fn rows() -> Vec<Row> {
    let row = |(size, numbers), clients| Row {
        size,
        numbers,
        clients,
        alone: Vec::new(),
        chains: vec![Vec::new(); STEPS.len()],
    };
    SIZES.into_iter().flat_map(|size| CLIENTS.map(|clients| row(size, clients))).collect()
}

impl Row {
    fn measure(&mut self, panoply: &Server, duty: Duty) -> Result<()> {
        self.alone.push(self.run("alone.tar.gz", panoply, duty)?);
        for (index, steps) in STEPS.into_iter().enumerate() {
            let round = self.run(&chain_archive(steps), panoply, duty)?;
            self.chains[index].push(round);
        }
        Ok(())
    }

    fn run(&self, archive: &str, panoply: &Server, duty: Duty) -> Result<Round> {
        let mut clients = Remote::clients(archive, self.numbers, self.clients, panoply.address())?;
        run(&mut clients, duty, panoply.process())
    }

    /// What each step after the first adds: the longest chain against the shortest, of the same round each.
    fn per_step(&self, of: fn(&Round) -> f64) -> f64 {
        let (shortest, longest) = (&self.chains[0], &self.chains[STEPS.len() - 1]);
        let more = (STEPS[STEPS.len() - 1] - STEPS[0]) as f64;
        median(shortest.iter().zip(longest).map(|(short, long)| (of(long) - of(short)) / more))
    }
}

fn chain_archive(steps: usize) -> String {
    format!("chain-{steps}.tar.gz")
}

/// The model alone, and a chain of each length.
fn write_archives(store: &Path) -> Result<()> {
    let port = |name: &str| format!("[ {{ name: \"{name}\" data_type: TYPE_FP32 dims: [ -1 ] }} ]\n");
    let model = |name: &str| {
        format!("name: \"{name}\"\nbackend: \"identity\"\ninput {}output {}", port("INPUT0"), port("OUTPUT0"))
    };
    let alone = ArchiveBuilder::new().file("alone/config.pbtxt", model("alone")).directory("alone/1");
    fs::write(store.join("alone.tar.gz"), alone.gzip())?;
    for steps in STEPS {
        let mut config =
            format!("name: \"chain\"\nplatform: \"ensemble\"\ninput {}output {}", port("INPUT0"), port("OUTPUT0"));
        config.push_str("ensemble_scheduling {\n");
        let mut archive = ArchiveBuilder::new();
        for step in 0..steps {
            let from = if step == 0 { "INPUT0".to_owned() } else { format!("after{step}") };
            let to = if step + 1 == steps { "OUTPUT0".to_owned() } else { format!("after{}", step + 1) };
            write!(
                config,
                "step {{ model_name: \"step{step}\" model_version: -1\n\
                 input_map {{ key: \"INPUT0\" value: \"{from}\" }} output_map {{ key: \"OUTPUT0\" value: \"{to}\" }} }}\n"
            )?;
            let name = format!("step{step}");
            archive = archive.file(&format!("{name}/config.pbtxt"), model(&name)).directory(&format!("{name}/1"));
        }
        config.push_str("}\n");
        let archive = archive.file("chain/config.pbtxt", config).directory("chain/1");
        fs::write(store.join(chain_archive(steps)), archive.gzip())?;
    }
    Ok(())
}

/// A client on a connection of its own.
struct Remote {
    connection: Connection,
    request: Arc<[u8]>,
    tail: usize,
}

impl Remote {
    /// So many clients; the model is in memory when they are there.
    fn clients(archive: &str, numbers: usize, count: usize, address: SocketAddr) -> Result<Vec<Box<dyn Client>>> {
        let request: Arc<[u8]> = payload::identity_http_to(archive, &payload::numbers(numbers)).into();
        let client = || -> Result<Remote> {
            Ok(Remote { connection: Connection::open(address)?, request: request.clone(), tail: numbers * 4 })
        };
        client()?.call()?;
        (0..count).map(|_| Ok(Box::new(client()?) as Box<dyn Client>)).collect()
    }
}

impl Client for Remote {
    fn call(&mut self) -> Result<()> {
        let answer = self.connection.exchange(&self.request)?;
        ensure!(answer.status == 200, "status {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        // Every step passes its bytes on: what was sent comes back.
        let sent = &self.request[self.request.len() - self.tail..];
        ensure!(answer.body.ends_with(sent), "the answer is not what was sent");
        Ok(())
    }
}

fn table(rows: &[Row]) -> Table {
    let mut columns = vec!["p50 µs".to_owned(), "clients".to_owned(), "model alone".to_owned()];
    columns.extend(STEPS.map(|steps| if steps == 1 { "1 step".to_owned() } else { format!("{steps} steps") }));
    columns.extend(["µs per further step".to_owned(), "CPU µs per further step".to_owned()]);
    let mut table = Table::new(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    for row in rows {
        let mut cells = vec![format!("identity, {}", row.size), row.clients.to_string()];
        cells.push(figure(Round::median(&row.alone).p50));
        cells.extend(row.chains.iter().map(|rounds| figure(Round::median(rounds).p50)));
        cells.extend([row.per_step(|round| round.p50), row.per_step(|round| round.cpu)].map(figure));
        table.row(cells);
    }
    table
}

//! What dynamic batching is worth: MiniLM's encoder and the whole ensemble with and without it, in turn, at 1 and 16
//! clients and several lengths of text; and what a row costs in batches of a size, which bounds the gain.

use std::collections::BTreeMap;
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
use benches::statistics::Round;
use benches::table::{Table, figure};
use benches::{machine, payload, server};
use tempfile::TempDir;
use test_util::archive::ArchiveBuilder;

/// How many clients at once.
const CLIENTS: [usize; 2] = [1, 16];
/// Tokens of each text.
const TOKENS: [usize; 3] = [16, 64, 128];
/// Rows of one request, where the cost of a row is measured.
const ROWS: [usize; 4] = [1, 4, 16, 32];
/// Archives, and what their encoder's configuration says of batching.
const WAYS: [(&str, &str); 4] = [
    ("none", ""),
    ("no delay", "dynamic_batching { }"),
    ("fixed 2 ms", "dynamic_batching { max_queue_delay_microseconds: 2000 }"),
    (
        "adaptive",
        "dynamic_batching { max_queue_delay_microseconds: 2000 }\n\
         parameters { key: \"adaptive_batching\" value: { string_value: \"true\" } }",
    ),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let (rounds, duty) = effort(arguments.quick);
    let folder = TempDir::new().context("there is no place for archives")?;
    let store = folder.path().join("store");
    fs::create_dir(&store)?;
    write_archives(&store)?;
    let panoply = Server::start(&server::build()?, &Store::Folder(store), &folder.path().join("cache"))?;
    let mut results: BTreeMap<Case, Vec<Round>> = BTreeMap::new();
    println!("\n## batching\n\n{}\n\n{}, before; {rounds} rounds", machine::description(), machine::moment());
    for round in 1..=rounds {
        eprintln!("batching: round {round} of {rounds}");
        for case in cases() {
            let mut clients = Remote::clients(&case, panoply.address())?;
            results.entry(case).or_default().push(run(&mut clients, duty, panoply.process())?);
        }
    }
    let medians = results.into_iter().map(|(case, rounds)| (case, Round::median(&rounds))).collect();
    println!("\n{}\n{}\n{}, after", throughput(&medians).markdown(), rows(&medians).markdown(), machine::moment());
    Ok(())
}

fn effort(quick: bool) -> (usize, Duty) {
    let duty =
        |warm_up, measure| Duty { warm_up: Duration::from_millis(warm_up), measure: Duration::from_millis(measure) };
    if quick { (1, duty(50, 200)) } else { (5, duty(200, 1000)) }
}

/// What is asked of which archive by how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    model: Model,
    tokens: usize,
    clients: usize,
    rows: usize,
    /// Its place in [`WAYS`].
    way: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Model {
    Encoder,
    Ensemble,
}

impl Case {
    fn archive(&self) -> String {
        archive(self.model, self.way)
    }

    fn request(&self) -> Vec<u8> {
        let Case { tokens, rows, .. } = *self;
        let path = format!("/v2/models/{}/infer", self.archive());
        match self.model {
            Model::Encoder => payload::tokens_http(&path, rows, tokens),
            // [CLS] and [SEP] come on top.
            Model::Ensemble => payload::words_http(&path, rows, tokens - 2),
        }
    }
}

fn archive(model: Model, way: usize) -> String {
    let name = match model {
        Model::Encoder => "encoder",
        Model::Ensemble => "minilm",
    };
    format!("{name}-{way}.tar.gz")
}

/// All cases of a round; those that are compared stand together.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (model, ways) in [(Model::Encoder, WAYS.len()), (Model::Ensemble, WAYS.len())] {
        for (tokens, clients) in TOKENS.into_iter().flat_map(|tokens| CLIENTS.map(|clients| (tokens, clients))) {
            cases.extend((0..ways).map(|way| Case { model, tokens, clients, rows: 1, way }));
        }
    }
    for tokens in TOKENS {
        let more = ROWS.into_iter().filter(|rows| *rows > 1);
        cases.extend(more.map(|rows| Case { model: Model::Encoder, tokens, clients: 1, rows, way: 0 }));
    }
    cases
}

/// Of MiniLM, an archive of the ensemble and one of the encoder alone for each of [`WAYS`].
fn write_archives(store: &Path) -> Result<()> {
    let repository = test_util::artifacts().join("model_repository/minilm");
    let read = |path: &str| {
        fs::read(repository.join(path)).with_context(|| format!("no {path} of MiniLM: run `cargo xtask setup`"))
    };
    for (way, (_, batching)) in WAYS.iter().enumerate() {
        let config = [read("encoder/config.pbtxt")?, batching.as_bytes().to_vec()].join(&b'\n');
        let encoder = ArchiveBuilder::new().file("encoder/config.pbtxt", &config);
        let encoder = encoder.file("encoder/1/model.onnx", read("encoder/1/model.onnx")?);
        let mut whole = ArchiveBuilder::new().file("encoder/config.pbtxt", &config);
        whole = whole.file("encoder/1/model.onnx", read("encoder/1/model.onnx")?);
        for file in ["tokenizer/config.pbtxt", "tokenizer/1/tokenizer.json", "pooling/config.pbtxt"] {
            whole = whole.file(file, read(file)?);
        }
        whole = whole.file("sentence_embedding/config.pbtxt", read("sentence_embedding/config.pbtxt")?);
        let whole = whole.directory("sentence_embedding/1").directory("pooling/1");
        fs::write(store.join(archive(Model::Encoder, way)), encoder.gzip())?;
        fs::write(store.join(archive(Model::Ensemble, way)), whole.gzip())?;
    }
    Ok(())
}

/// A client on a connection of its own.
struct Remote {
    connection: Connection,
    request: Arc<[u8]>,
}

impl Remote {
    /// The clients of a case; the model is in memory when they are there.
    fn clients(case: &Case, address: SocketAddr) -> Result<Vec<Box<dyn Client>>> {
        let request: Arc<[u8]> = case.request().into();
        Remote { connection: Connection::open(address)?, request: request.clone() }.call()?;
        let client = |_| -> Result<Box<dyn Client>> {
            Ok(Box::new(Remote { connection: Connection::open(address)?, request: request.clone() }))
        };
        (0..case.clients).map(client).collect()
    }
}

impl Client for Remote {
    fn call(&mut self) -> Result<()> {
        let answer = self.connection.exchange(&self.request)?;
        ensure!(answer.status == 200, "status {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        Ok(())
    }
}

fn throughput(medians: &BTreeMap<Case, Round>) -> Table {
    let mut columns = vec!["requests/s".to_owned(), "tokens".to_owned(), "clients".to_owned(), "without".to_owned()];
    columns.extend(WAYS[1..].iter().flat_map(|(way, _)| [way.to_string(), "ratio".to_owned()]));
    columns.extend(["p50 µs without".to_owned()]);
    columns.extend(WAYS[1..].iter().map(|(way, _)| way.to_string()));
    let mut table = Table::new(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    for (case, plain) in medians.iter().filter(|(case, _)| case.way == 0 && case.rows == 1) {
        let batching = (1..WAYS.len()).filter_map(|way| medians.get(&Case { way, ..*case }));
        let batching: Vec<&Round> = batching.collect();
        let name = match case.model {
            Model::Encoder => "encoder",
            Model::Ensemble => "ensemble",
        };
        let mut cells = vec![name.to_owned(), case.tokens.to_string(), case.clients.to_string()];
        cells.push(figure(plain.per_second));
        cells.extend(batching.iter().flat_map(|r| [figure(r.per_second), figure(r.per_second / plain.per_second)]));
        cells.push(figure(plain.p50));
        cells.extend(batching.iter().map(|round| figure(round.p50)));
        table.row(cells);
    }
    table
}

/// What a row costs in one request of so many: no batching can gain more than the first is above the others.
fn rows(medians: &BTreeMap<Case, Round>) -> Table {
    let mut columns = vec!["encoder, ms per row".to_owned()];
    columns.extend(ROWS.map(|rows| format!("{rows} rows")));
    columns.push("most that batching can gain".to_owned());
    let mut table = Table::new(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    for tokens in TOKENS {
        let cost = |rows: usize| {
            let case = Case { model: Model::Encoder, tokens, clients: 1, rows, way: 0 };
            medians.get(&case).map_or(f64::NAN, |round| round.p50 / 1000.0 / rows as f64)
        };
        let costs = ROWS.map(cost);
        let least = costs.into_iter().fold(f64::INFINITY, f64::min);
        let mut cells = vec![format!("{tokens} tokens")];
        cells.extend(costs.map(figure));
        cells.push(figure(costs[0] / least));
        table.row(cells);
    }
    table
}

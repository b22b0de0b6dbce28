//! What a request costs: the bare backend, HTTP alone, and the server over HTTP and gRPC, at 1 to 64 clients, in turn.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use benches::arguments::{Arguments, ECHO_SERVER};
use benches::bare::{Identity, MiniLm};
use benches::http::Connection;
use benches::load::{Client, Duty, run};
use benches::server::{Server, Store};
use benches::statistics::{Round, median, range};
use benches::table::{Table, figure};
use benches::{echo, grpc, machine, payload, server};
use tempfile::TempDir;

/// How many clients at once.
const CLIENTS: [usize; 4] = [1, 4, 16, 64];
/// The small request's numbers: 16 bytes.
const SMALL: usize = 4;
/// The large request's numbers: 602,112 bytes, a picture of 224 × 224 in FP32.
const LARGE: usize = 3 * 224 * 224;
/// How far an embedding may be from the bare backends', element by element.
const TOLERANCE: f64 = 1e-5;
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    if arguments.echo_server {
        return echo::serve();
    }
    let (rounds, duty) = effort(arguments.quick);
    let folder = TempDir::new().context("there is no place for a disk cache")?;
    let store = Store::Folder(test_util::artifacts().join("demo-store"));
    let panoply = Server::start(&server::build()?, &store, folder.path())?;
    let http = Server::start_self(ECHO_SERVER)?;
    let mut cases = cases(&panoply)?;
    cases.retain(|case| arguments.case.as_deref().is_none_or(|wanted| case.name.contains(wanted)));
    println!("\n## request\n\n{}\n\n{}, before; {rounds} rounds", machine::description(), machine::moment());
    for round in 1..=rounds {
        eprintln!("request: round {round} of {rounds}");
        for case in &mut cases {
            case.measure(&panoply, &http, duty)?;
        }
    }
    println!("\n{}\n{}\n{}, after", latencies(&cases).markdown(), costs(&cases).markdown(), machine::moment());
    Ok(())
}

fn effort(quick: bool) -> (usize, Duty) {
    let duty =
        |warm_up, measure| Duty { warm_up: Duration::from_millis(warm_up), measure: Duration::from_millis(measure) };
    if quick { (1, duty(50, 250)) } else { (5, duty(250, 1250)) }
}

/// One kind of request, and what was measured so far.
struct Case {
    name: &'static str,
    bare: Vec<Box<dyn Client>>,
    request: Arc<[u8]>,
    answer_bytes: RangeInclusive<usize>,
    /// The same over gRPC: message and answer with their prefixes.
    call: Arc<[u8]>,
    call_bytes: RangeInclusive<usize>,
    /// One per entry of [`CLIENTS`].
    results: Vec<Contenders>,
}

/// Rounds of each contender at one number of clients.
#[derive(Default)]
struct Contenders {
    bare: Vec<Round>,
    http: Vec<Round>,
    panoply: Vec<Round>,
    grpc: Vec<Round>,
}

impl Case {
    fn measure(&mut self, panoply: &Server, http: &Server, duty: Duty) -> Result<()> {
        for (&count, results) in CLIENTS.iter().zip(&mut self.results) {
            results.bare.push(run(&mut self.bare[..count], duty, std::process::id())?);
            let mut clients = Remote::clients(count, http.address(), &self.request, None)?;
            results.http.push(run(&mut clients, duty, http.process())?);
            let mut clients = Remote::clients(count, panoply.address(), &self.request, Some(&self.answer_bytes))?;
            results.panoply.push(run(&mut clients, duty, panoply.process())?);
            let mut clients = Caller::clients(count, panoply.grpc_address()?, &self.call, &self.call_bytes)?;
            results.grpc.push(run(&mut clients, duty, panoply.process())?);
        }
        Ok(())
    }
}

/// A client of a server, on a connection of its own.
struct Remote {
    connection: Connection,
    request: Arc<[u8]>,
    answer_bytes: Option<RangeInclusive<usize>>,
}

impl Remote {
    fn clients(
        count: usize,
        address: SocketAddr,
        request: &Arc<[u8]>,
        answer_bytes: Option<&RangeInclusive<usize>>,
    ) -> Result<Vec<Box<dyn Client>>> {
        let client = |_| -> Result<Box<dyn Client>> {
            let (connection, request) = (Connection::open(address)?, request.clone());
            Ok(Box::new(Remote { connection, request, answer_bytes: answer_bytes.cloned() }))
        };
        (0..count).map(client).collect()
    }
}

impl Client for Remote {
    fn call(&mut self) -> Result<()> {
        let answer = self.connection.exchange(&self.request)?;
        let fits = self.answer_bytes.as_ref().is_none_or(|bytes| bytes.contains(&answer.body.len()));
        ensure!(answer.status == 200 && fits, "status {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        Ok(())
    }
}

/// A client of the gRPC port, on a connection of its own.
struct Caller {
    connection: grpc::Connection,
    message: Arc<[u8]>,
    answer_bytes: RangeInclusive<usize>,
}

impl Caller {
    fn clients(
        count: usize,
        address: SocketAddr,
        message: &Arc<[u8]>,
        answer_bytes: &RangeInclusive<usize>,
    ) -> Result<Vec<Box<dyn Client>>> {
        let client = |_| -> Result<Box<dyn Client>> {
            let connection = grpc::Connection::open(address, MODEL_INFER)?;
            Ok(Box::new(Caller { connection, message: message.clone(), answer_bytes: answer_bytes.clone() }))
        };
        (0..count).map(client).collect()
    }
}

impl Client for Caller {
    fn call(&mut self) -> Result<()> {
        let bytes = self.connection.call(&self.message)?;
        ensure!(self.answer_bytes.contains(&bytes), "the answer has {bytes} bytes; expected {:?}", self.answer_bytes);
        Ok(())
    }
}

/// The cases, each with one answer proved right both ways, which also loads its model.
fn cases(panoply: &Server) -> Result<Vec<Case>> {
    let most = CLIENTS.into_iter().max().unwrap_or(1);
    let results = || CLIENTS.iter().map(|_| Contenders::default()).collect();
    let mut cases = Vec::new();
    for (name, count) in [("identity, 16 B", SMALL), ("identity, 600 KB", LARGE)] {
        let numbers = payload::numbers(count);
        let request: Arc<[u8]> = payload::identity_http(&numbers).into();
        let mut connection = Connection::open(panoply.address())?;
        let answer = connection.exchange(&request)?;
        let sent = &request[request.len() - count * size_of::<f32>()..];
        ensure!(answer.status == 200 && answer.body.ends_with(sent), "{name}: {:?}", answer.status);
        let answer_bytes = exactly(answer.body.len());
        let call: Arc<[u8]> = payload::identity_grpc(&numbers).into();
        let answer = grpc::Connection::open(panoply.grpc_address()?, MODEL_INFER)?.answer(&call)?;
        ensure!(answer.ends_with(sent), "{name}: the answer over gRPC is another");
        let call_bytes = exactly(answer.len());
        let bare = Identity::clients(most, count)?;
        cases.push(Case { name, bare, request, answer_bytes, call, call_bytes, results: results() });
    }
    let mut bare = MiniLm::clients(most)?;
    let expected = bare[0].embed()?.to_elements::<f32>()?.to_vec();
    let request: Arc<[u8]> = payload::sentences_http("minilm.tar.gz").into();
    let answer_bytes = prove_embeddings(panoply.address(), &request, &expected)?;
    let call: Arc<[u8]> = payload::sentences_grpc("minilm.tar.gz")?.into();
    let call_bytes = prove_raw_embeddings(panoply.grpc_address()?, &call, &expected)?;
    let bare = bare.into_iter().map(|client| Box::new(client) as Box<dyn Client>).collect();
    cases.push(Case { name: "MiniLM, 2 sentences", bare, request, answer_bytes, call, call_bytes, results: results() });
    Ok(cases)
}

fn exactly(bytes: usize) -> RangeInclusive<usize> {
    bytes..=bytes
}

/// Compares the server's embeddings with the bare backends'. The answer's length may vary a little with the last digits.
fn prove_embeddings(panoply: SocketAddr, request: &[u8], expected: &[f32]) -> Result<RangeInclusive<usize>> {
    let mut connection = Connection::open(panoply)?;
    let answer = connection.exchange(request)?;
    ensure!(answer.status == 200, "MiniLM: {}", String::from_utf8_lossy(answer.body));
    are_close(&payload::embeddings(answer.body)?, expected)?;
    let bytes = answer.body.len();
    Ok(bytes * 9 / 10..=bytes * 11 / 10)
}

/// The same over gRPC, where they are the answer's last bytes.
fn prove_raw_embeddings(panoply: SocketAddr, call: &[u8], expected: &[f32]) -> Result<RangeInclusive<usize>> {
    let answer = grpc::Connection::open(panoply, MODEL_INFER)?.answer(call)?;
    let raw = answer.len().checked_sub(size_of_val(expected)).context("the answer is too short")?;
    let numbers = answer[raw..].as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
    are_close(&numbers.collect::<Vec<_>>(), expected)?;
    Ok(exactly(answer.len()))
}

fn are_close(served: &[f64], expected: &[f32]) -> Result<()> {
    let close = |(served, expected): (&f64, &f32)| (served - f64::from(*expected)).abs() < TOLERANCE;
    let is_right = served.len() == expected.len() && served.iter().zip(expected).all(close);
    ensure!(is_right, "the server's embeddings are not those of the bare backends");
    Ok(())
}

fn latencies(cases: &[Case]) -> Table {
    let mut table = Table::new(&[
        "µs per request",
        "clients",
        "bare p50",
        "HTTP alone p50",
        "Panoply p50",
        "(rounds)",
        "p90",
        "p99",
        "added to bare",
        "ratio",
        "added to HTTP alone",
        "gRPC p50",
        "(rounds)",
    ]);
    each(cases, |name, clients, results| {
        let [bare, http, panoply, grpc] = medians(results);
        let (low, high) = range(results.panoply.iter().map(|round| round.p50));
        let mut cells = vec![name.to_owned(), clients.to_string()];
        cells.extend([bare.p50, http.p50, panoply.p50].map(figure));
        cells.push(format!("{}–{}", figure(low), figure(high)));
        cells.extend([panoply.p90, panoply.p99].map(figure));
        cells.extend([panoply.p50 - bare.p50, panoply.p50 / bare.p50, panoply.p50 - http.p50, grpc.p50].map(figure));
        let (low, high) = range(results.grpc.iter().map(|round| round.p50));
        cells.push(format!("{}–{}", figure(low), figure(high)));
        table.row(cells);
    });
    table
}

fn costs(cases: &[Case]) -> Table {
    let mut table = Table::new(&[
        "",
        "clients",
        "requests/s bare",
        "HTTP alone",
        "Panoply",
        "gRPC",
        "gRPC ÷ HTTP",
        "CPU µs per request bare",
        "HTTP alone",
        "Panoply",
        "added to HTTP alone and bare",
        "gRPC",
    ]);
    each(cases, |name, clients, results| {
        let [bare, http, panoply, grpc] = medians(results);
        let mut cells = vec![name.to_owned(), clients.to_string()];
        cells.extend([bare.per_second, http.per_second, panoply.per_second, grpc.per_second].map(figure));
        // Of the same round each, so that a noisy neighbour weighs on both.
        let ratios = results.panoply.iter().zip(&results.grpc).map(|(http, grpc)| grpc.per_second / http.per_second);
        cells.push(figure(median(ratios)));
        cells.extend([bare.cpu, http.cpu, panoply.cpu, panoply.cpu - http.cpu - bare.cpu, grpc.cpu].map(figure));
        table.row(cells);
    });
    table
}

fn each(cases: &[Case], mut row: impl FnMut(&str, usize, &Contenders)) {
    for case in cases {
        CLIENTS.iter().zip(&case.results).for_each(|(clients, results)| row(case.name, *clients, results));
    }
}

fn medians(results: &Contenders) -> [Round; 4] {
    [&results.bare, &results.http, &results.panoply, &results.grpc].map(|rounds| Round::median(rounds))
}

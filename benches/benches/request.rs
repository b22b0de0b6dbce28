//! What a request costs: the bare backend, HTTP alone, and the server over HTTP and gRPC, at 1 to 64 clients, in turn.

use std::fmt;
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
use benches::statistics::{Round, median};
use benches::table::{Table, figure, spread};
use benches::{cores, echo, grpc, machine, payload, server};
use tempfile::TempDir;

/// How many clients at once, for the models whose own threads want all cores.
const CLIENTS: [Point; 4] = [Point::of(1), Point::of(4), Point::of(16), Point::of(64)];
/// The same, and one client on the server's core: without the time that waking another core takes, which on virtual
/// machines can be more than all the rest, and which happens for some runs and not for others.
const WITH_ONE_CORE: [Point; 5] =
    [Point { clients: 1, one_core: true }, Point::of(1), Point::of(4), Point::of(16), Point::of(64)];
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

/// How many clients there are, and whether they and the server have one core between them.
#[derive(Clone, Copy)]
struct Point {
    clients: usize,
    one_core: bool,
}

impl Point {
    const fn of(clients: usize) -> Self {
        Point { clients, one_core: false }
    }

    fn run(self, clients: &mut [Box<dyn Client>], duty: Duty, process: u32) -> Result<Round> {
        if self.one_core {
            cores::on_one(process, || run(clients, duty, process))?
        } else {
            run(clients, duty, process)
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.clients, if self.one_core { ", one core" } else { "" })
    }
}

/// One kind of request, and what was measured so far.
struct Case {
    name: &'static str,
    bare: Vec<Box<dyn Client>>,
    request: Arc<[u8]>,
    answer_bytes: RangeInclusive<usize>,
    /// The same over gRPC; none where HTTP's request is another form of a case that has one.
    call: Option<Call>,
    results: Vec<(Point, Contenders)>,
}

/// A call over gRPC: its message and the length of its answer's, both with their prefixes.
struct Call {
    message: Arc<[u8]>,
    answer_bytes: RangeInclusive<usize>,
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
        for (point, results) in &mut self.results {
            let count = point.clients;
            results.bare.push(point.run(&mut self.bare[..count], duty, std::process::id())?);
            let mut clients = Remote::clients(count, http.address(), &self.request, None)?;
            results.http.push(point.run(&mut clients, duty, http.process())?);
            let mut clients = Remote::clients(count, panoply.address(), &self.request, Some(&self.answer_bytes))?;
            results.panoply.push(point.run(&mut clients, duty, panoply.process())?);
            if let Some(call) = &self.call {
                let mut clients = Caller::clients(count, panoply.grpc_address()?, call)?;
                results.grpc.push(point.run(&mut clients, duty, panoply.process())?);
            }
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
    fn clients(count: usize, address: SocketAddr, call: &Call) -> Result<Vec<Box<dyn Client>>> {
        let client = |_| -> Result<Box<dyn Client>> {
            let connection = grpc::Connection::open(address, MODEL_INFER)?;
            Ok(Box::new(Caller { connection, message: call.message.clone(), answer_bytes: call.answer_bytes.clone() }))
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

/// The cases, each with one answer proved right every way, which also loads its model.
fn cases(panoply: &Server) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (name, json_name, count) in
        [("identity, 16 B", "identity, 16 B, JSON", SMALL), ("identity, 600 KB", "identity, 600 KB, JSON", LARGE)]
    {
        cases.push(identity(panoply, name, count)?);
        cases.push(identity_as_json(panoply, json_name, count)?);
    }
    let mut bare = MiniLm::clients(most_clients())?;
    let expected = bare[0].embed()?.to_elements::<f32>()?.to_vec();
    cases.push(sentences(panoply, bare, &expected)?);
    cases.push(sentences_as_json(panoply, MiniLm::clients(most_clients())?, &expected)?);
    Ok(cases)
}

fn most_clients() -> usize {
    CLIENTS.iter().map(|point| point.clients).max().unwrap_or(1)
}

fn no_results(points: &[Point]) -> Vec<(Point, Contenders)> {
    points.iter().map(|&point| (point, Contenders::default())).collect()
}

/// Binary both ways.
fn identity(panoply: &Server, name: &'static str, count: usize) -> Result<Case> {
    let numbers = payload::numbers(count);
    let request: Arc<[u8]> = payload::identity_http(&numbers).into();
    let mut connection = Connection::open(panoply.address())?;
    let answer = connection.exchange(&request)?;
    let sent = &request[request.len() - count * size_of::<f32>()..];
    ensure!(answer.status == 200 && answer.body.ends_with(sent), "{name}: {:?}", answer.status);
    let answer_bytes = exactly(answer.body.len());
    let message: Arc<[u8]> = payload::identity_grpc(&numbers).into();
    let answer = grpc::Connection::open(panoply.grpc_address()?, MODEL_INFER)?.answer(&message)?;
    ensure!(answer.ends_with(sent), "{name}: the answer over gRPC is another");
    let call = Some(Call { message, answer_bytes: exactly(answer.len()) });
    let bare = Identity::clients(most_clients(), count)?;
    Ok(Case { name, bare, request, answer_bytes, call, results: no_results(&WITH_ONE_CORE) })
}

fn identity_as_json(panoply: &Server, name: &'static str, count: usize) -> Result<Case> {
    let numbers = payload::numbers(count);
    let request: Arc<[u8]> = payload::identity_json(&numbers).into();
    let mut connection = Connection::open(panoply.address())?;
    let answer = connection.exchange(&request)?;
    ensure!(answer.status == 200, "{name}: {}", String::from_utf8_lossy(answer.body));
    let (given, sent) = (payload::data(answer.body)?, numbers.iter().map(|&number| f64::from(number)));
    ensure!(given.iter().copied().eq(sent), "{name}: the answer is not what was sent");
    let answer_bytes = exactly(answer.body.len());
    let bare = Identity::clients(most_clients(), count)?;
    Ok(Case { name, bare, request, answer_bytes, call: None, results: no_results(&WITH_ONE_CORE) })
}

/// Binary both ways.
fn sentences(panoply: &Server, bare: Vec<MiniLm>, expected: &[f32]) -> Result<Case> {
    let request: Arc<[u8]> = payload::sentences_binary_http("minilm.tar.gz")?.into();
    let mut connection = Connection::open(panoply.address())?;
    let answer = connection.exchange(&request)?;
    ensure!(answer.status == 200, "MiniLM: {}", String::from_utf8_lossy(answer.body));
    are_close(&raw_numbers(answer.body, expected.len())?, expected)?;
    let answer_bytes = exactly(answer.body.len());
    let message: Arc<[u8]> = payload::sentences_grpc("minilm.tar.gz")?.into();
    let answer = grpc::Connection::open(panoply.grpc_address()?, MODEL_INFER)?.answer(&message)?;
    are_close(&raw_numbers(&answer, expected.len())?, expected)?;
    let call = Some(Call { message, answer_bytes: exactly(answer.len()) });
    Ok(Case {
        name: "MiniLM, 2 sentences",
        bare: boxed(bare),
        request,
        answer_bytes,
        call,
        results: no_results(&CLIENTS),
    })
}

fn sentences_as_json(panoply: &Server, bare: Vec<MiniLm>, expected: &[f32]) -> Result<Case> {
    let request: Arc<[u8]> = payload::sentences_http("minilm.tar.gz").into();
    let mut connection = Connection::open(panoply.address())?;
    let answer = connection.exchange(&request)?;
    ensure!(answer.status == 200, "MiniLM: {}", String::from_utf8_lossy(answer.body));
    are_close(&payload::data(answer.body)?, expected)?;
    // Its length may vary a little with the last digits.
    let bytes = answer.body.len();
    let (bare, answer_bytes) = (boxed(bare), bytes * 9 / 10..=bytes * 11 / 10);
    let name = "MiniLM, 2 sentences, JSON";
    Ok(Case { name, bare, request, answer_bytes, call: None, results: no_results(&CLIENTS) })
}

fn boxed(clients: Vec<MiniLm>) -> Vec<Box<dyn Client>> {
    clients.into_iter().map(|client| Box::new(client) as Box<dyn Client>).collect()
}

/// So many FP32 numbers at an answer's end.
fn raw_numbers(answer: &[u8], count: usize) -> Result<Vec<f64>> {
    let raw = answer.len().checked_sub(count * size_of::<f32>()).context("the answer is too short")?;
    Ok(answer[raw..].as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect())
}

fn exactly(bytes: usize) -> RangeInclusive<usize> {
    bytes..=bytes
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
    each(cases, |name, point, results| {
        let [bare, http, panoply, grpc] = medians(results);
        let mut cells = vec![name.to_owned(), point.to_string()];
        cells.extend([bare.p50, http.p50, panoply.p50].map(figure));
        cells.push(spread(results.panoply.iter().map(|round| round.p50)));
        cells.extend([panoply.p90, panoply.p99].map(figure));
        cells.extend([panoply.p50 - bare.p50, panoply.p50 / bare.p50, panoply.p50 - http.p50, grpc.p50].map(figure));
        cells.push(spread(results.grpc.iter().map(|round| round.p50)));
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
    each(cases, |name, point, results| {
        let [bare, http, panoply, grpc] = medians(results);
        let mut cells = vec![name.to_owned(), point.to_string()];
        cells.extend([bare.per_second, http.per_second, panoply.per_second, grpc.per_second].map(figure));
        // Of the same round each, so that a noisy neighbour weighs on both.
        let ratios = results.panoply.iter().zip(&results.grpc).map(|(http, grpc)| grpc.per_second / http.per_second);
        cells.push(figure(median(ratios)));
        cells.extend([bare.cpu, http.cpu, panoply.cpu, panoply.cpu - http.cpu - bare.cpu, grpc.cpu].map(figure));
        table.row(cells);
    });
    table
}

fn each(cases: &[Case], mut row: impl FnMut(&str, Point, &Contenders)) {
    for case in cases {
        case.results.iter().for_each(|(point, results)| row(case.name, *point, results));
    }
}

fn medians(results: &Contenders) -> [Round; 4] {
    [&results.bare, &results.http, &results.panoply, &results.grpc].map(|rounds| Round::median(rounds))
}

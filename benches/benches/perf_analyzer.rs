//! Throughput and latency as NVIDIA's `perf_analyzer` measures them, over HTTP and gRPC side by side.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use benches::arguments::Arguments;
use benches::machine;
use benches::perf_analyzer::{PerfAnalyzer, Protocol, Report, Workload};
use benches::server::{self, Server, Store};
use benches::statistics::median;
use benches::table::{Table, figure};
use tempfile::TempDir;

/// How many requests are under way at once.
const CLIENTS: [usize; 4] = [1, 4, 16, 64];
const PROTOCOLS: [Protocol; 3] = [Protocol::Http, Protocol::Grpc, Protocol::GrpcUnshared];
const WORKLOADS: [Workload; 3] = [
    Workload { name: "identity, 16 B", model: "identity.tar.gz", options: &["--shape", "INPUT0:4"] },
    Workload { name: "identity, 600 KB", model: "identity.tar.gz", options: &["--shape", "INPUT0:150528"] },
    Workload {
        name: "MiniLM, 1 sentence",
        model: "minilm.tar.gz",
        options: &["--shape", "TEXT:1", "--string-data", "A man is eating food."],
    },
];

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let (rounds, window) = if arguments.quick { (1, 200) } else { (3, 1000) };
    let window = Duration::from_millis(window);
    let client = PerfAnalyzer::find()?;
    let folder = TempDir::new().context("there is no place for a disk cache")?;
    let store = Store::Folder(test_util::artifacts().join("demo-store"));
    let panoply = Server::start(&server::build()?, &store, folder.path())?;
    let mut rows = rows();
    println!("\n## perf_analyzer\n\n{}\n\n{}, before; {rounds} rounds", machine::description(), machine::moment());
    for round in 1..=rounds {
        eprintln!("perf_analyzer: round {round} of {rounds}");
        for row in &mut rows {
            row.measure(&client, &panoply, window)?;
        }
    }
    println!("\n{}\n{}, after", table(&rows).markdown(), machine::moment());
    Ok(())
}

/// One workload at one number of clients; results by protocol.
struct Row {
    workload: Workload,
    clients: usize,
    runs: [Vec<Run>; PROTOCOLS.len()],
}

/// One run, and how many of the machine's cores the server kept busy during it.
struct Run {
    report: Report,
    cores: f64,
}

fn rows() -> Vec<Row> {
    let row = |workload: Workload, clients| Row { workload, clients, runs: PROTOCOLS.map(|_| Vec::new()) };
    WORKLOADS.into_iter().flat_map(|workload| CLIENTS.map(|clients| row(workload, clients))).collect()
}

impl Row {
    fn measure(&mut self, client: &PerfAnalyzer, panoply: &Server, window: Duration) -> Result<()> {
        for (protocol, runs) in PROTOCOLS.into_iter().zip(&mut self.runs) {
            let address = match protocol {
                Protocol::Http => panoply.address(),
                Protocol::Grpc | Protocol::GrpcUnshared => panoply.grpc_address()?,
            };
            let (begin, before) = (Instant::now(), machine::cpu_time(panoply.process())?);
            let report = client.run(&self.workload, protocol, address, self.clients, window)?;
            let used = machine::cpu_time(panoply.process())?.saturating_sub(before);
            runs.push(Run { report, cores: used.as_secs_f64() / begin.elapsed().as_secs_f64() });
        }
        Ok(())
    }
}

fn table(rows: &[Row]) -> Table {
    let heads = PROTOCOLS.map(|protocol| format!("{protocol}: inf/s"));
    let mut columns = vec!["inferences a second, latency in µs", "clients"];
    for (protocol, head) in PROTOCOLS.into_iter().zip(&heads) {
        columns.extend([head, "p50", "p99", "server's cores"]);
        if protocol != Protocol::Http {
            columns.push(": HTTP");
        }
    }
    let mut table = Table::new(&columns);
    for row in rows {
        let mut cells = vec![row.workload.name.to_owned(), row.clients.to_string()];
        let [http, ..] = &row.runs;
        for (protocol, runs) in PROTOCOLS.into_iter().zip(&row.runs) {
            let of = |value: fn(&Run) -> f64| figure(median(runs.iter().map(value)));
            cells.extend([of(|run| run.report.per_second), of(|run| run.report.p50), of(|run| run.report.p99)]);
            cells.push(of(|run| run.cores));
            if protocol != Protocol::Http {
                // Pairs of one round, so that a neighbour who came and went weighs on both sides.
                let ratios = http.iter().zip(runs).map(|(http, run)| run.report.per_second / http.report.per_second);
                cells.push(figure(median(ratios)));
            }
        }
        table.row(cells);
    }
    table
}

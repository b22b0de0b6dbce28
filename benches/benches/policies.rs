//! Which eviction policy suits which traffic: replays traces against each, without a server. The same every time.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use benches::arguments::Arguments;
use benches::policies::generate::{cyclic, nightly_scan, zipf, zipf_shifting};
use benches::policies::replay::{Outcome, replay};
use benches::policies::trace::Trace;
use benches::table::{Table, figure};
use model_cache::policy::EvictionPolicy;

/// Where every made-up trace begins.
const SEED: u64 = 20_261_122;
/// Requests of a made-up trace, and of a quick one.
const REQUESTS: usize = 400_000;
const QUICK_REQUESTS: usize = 40_000;
/// The budget's share of the bytes of all archives, in percent.
const BUDGETS: [u64; 3] = [10, 25, 50];
/// Recorded traces.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/traces");

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let requests = if arguments.quick { QUICK_REQUESTS } else { REQUESTS };
    println!("\n## policies\n\nseed {SEED}, {requests} requests, the first quarter not counted\n");
    let mut columns = vec!["trace", "budget %"];
    let names: Vec<String> = ["hit %", "load s / 1,000"]
        .iter()
        .flat_map(|what| EvictionPolicy::ALL.map(|policy| format!("{policy} {what}")))
        .collect();
    columns.extend(names.iter().map(String::as_str));
    let mut table = Table::new(&columns);
    for (name, trace) in traces(requests)? {
        if arguments.case.as_ref().is_some_and(|case| !name.contains(case)) {
            continue;
        }
        for percent in BUDGETS {
            table.row(row(&name, &trace, percent));
        }
    }
    println!("{}", table.markdown());
    Ok(())
}

fn row(name: &str, trace: &Trace, percent: u64) -> Vec<String> {
    let (budget, warm_up) = (trace.bytes() / 100 * percent, trace.accesses.len() / 4);
    let outcomes = EvictionPolicy::ALL.map(|policy| replay(trace, policy, budget, warm_up));
    let mut cells = vec![name.to_owned(), percent.to_string()];
    cells.extend(outcomes.iter().map(|outcome| figure(outcome.hit_ratio() * 100.0)));
    cells.extend(outcomes.iter().map(Outcome::load_seconds_per_1000).map(figure));
    cells
}

fn traces(requests: usize) -> Result<Vec<(String, Trace)>> {
    let mut traces = vec![
        ("Zipf, stable".to_owned(), zipf(SEED, requests)),
        ("Zipf, shifting".to_owned(), zipf_shifting(SEED, requests)),
        ("Zipf, nightly scan".to_owned(), nightly_scan(SEED, requests)),
        ("cyclic".to_owned(), cyclic(SEED, requests)),
    ];
    let mut files: Vec<_> = fs::read_dir(RECORDED)
        .with_context(|| format!("no recorded traces in {RECORDED}"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
    files.sort();
    for path in files {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        traces.push((format!("recorded: {name}"), read(&path)?));
    }
    Ok(traces)
}

fn read(path: &Path) -> Result<Trace> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Trace::from_csv(&text).with_context(|| path.display().to_string())
}

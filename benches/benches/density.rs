//! How many copies of a model fit in a gibibyte of private memory, with weights of their own and with weights that stay in
//! the file, and what a request costs in each case.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use benches::arguments::Arguments;
use benches::copies::{Copy, Original, private_bytes};
use benches::machine;
use benches::statistics::median;
use benches::table::{Table, figure, spread};
use inference::Weights;
use tempfile::TempDir;

const GIB: u64 = 1 << 30;
const MODES: [Weights; 2] = [Weights::Private, Weights::Mapped];
const BATCHES: [i64; 3] = [1, 8, 32];
/// How often everything is repeated.
const ROUNDS: usize = 3;
/// How long requests of one kind are sent in one round.
const STRETCH: Duration = Duration::from_millis(1500);
/// More copies than that are not loaded; what one takes says how many there could be.
const MOST_COPIES: u64 = 200;

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    if let Some(kind) = &arguments.fill {
        return fill(kind, arguments.quick);
    }
    println!("\n## density\n\n{}\n\n{}, before", machine::description(), machine::moment());
    let wanted = |name: &&str| arguments.case.as_ref().is_none_or(|case| name.contains(&**case));
    let names: Vec<&str> = Original::NAMES.into_iter().filter(wanted).collect();
    ensure!(!names.is_empty(), "there are {:?}", Original::NAMES);
    let (mut memory, mut time) = (memory_table(), time_table());
    for name in names {
        eprintln!("density: {name}");
        memory_rows(name, arguments.quick, &mut memory)?;
        time_rows(name, arguments.quick, &mut time)?;
    }
    println!("\n{}\n{}\n{}, after", memory.markdown(), time.markdown(), machine::moment());
    Ok(())
}

fn memory_table() -> Table {
    Table::new(&["model", "file, MB", "weights", "private MB per copy", "(rounds)", "copies in 1 GiB", "load, ms"])
}

/// Measures each mode in processes of their own.
fn memory_rows(name: &str, quick: bool, table: &mut Table) -> Result<()> {
    let scratch = TempDir::new()?;
    let megabytes = Original::open(name, scratch.path())?.file_bytes()? as f64 / 1e6;
    for weights in MODES {
        let rounds = (0..if quick { 1 } else { ROUNDS }).map(|_| filled(name, weights, quick));
        let rounds = rounds.collect::<Result<Vec<Filled>>>()?;
        table.row(vec![
            name.to_owned(),
            figure(megabytes),
            weights.name().to_owned(),
            figure(median(rounds.iter().map(|round| round.bytes / 1e6))),
            spread(rounds.iter().map(|round| round.bytes / 1e6)),
            figure(median(rounds.iter().map(|round| (GIB as f64 / round.bytes).floor()))),
            figure(median(rounds.iter().map(|round| round.milliseconds))),
        ]);
    }
    Ok(())
}

/// What a copy costs, on the average over all that were loaded.
struct Filled {
    bytes: f64,
    milliseconds: f64,
}

/// Asks a process of its own.
fn filled(name: &str, weights: Weights, quick: bool) -> Result<Filled> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([Arguments::FILL, &format!("{name} {}", weights.name())]);
    command.args(quick.then_some("--quick"));
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let mut number = || numbers.next().context("a number is missing")?.context("no number");
    Ok(Filled { bytes: number()?, milliseconds: number()? })
}

/// Loads copies, each of which answers once, until they have a gibibyte for themselves.
fn fill(kind: &str, quick: bool) -> Result<()> {
    let Some((name, weights)) = kind.split_once(' ') else { bail!("'{kind}' names no model and weights") };
    let weights = Weights::from_name(weights).context("there are no such weights")?;
    let scratch = TempDir::new()?;
    let original = Original::open(name, scratch.path())?;
    let request = original.request(1)?;
    let mut copies: Vec<Copy> = Vec::new();
    let load = |copies: &mut Vec<Copy>| -> Result<()> {
        copies.push(original.copy(weights)?);
        copies.last_mut().context("just loaded")?.run(&request)
    };
    // What the first ones take of free lists and arena is not theirs.
    load(&mut copies)?;
    load(&mut copies)?;
    give_free_memory_back();
    let (base, before, begun) = (private_bytes()?, copies.len(), Instant::now());
    let most = if quick { 12 } else { MOST_COPIES };
    while private_bytes()? < base + GIB && (copies.len() as u64) < most {
        load(&mut copies)?;
    }
    let (count, elapsed) = ((copies.len() - before) as f64, begun.elapsed());
    give_free_memory_back();
    println!("{} {}", (private_bytes()? - base) as f64 / count, elapsed.as_secs_f64() * 1e3 / count);
    Ok(())
}

/// What is free in the heap is nobody's.
fn give_free_memory_back() {
    // SAFETY: it may be called at any time, from any thread.
    unsafe { libc::malloc_trim(0) };
}

fn time_table() -> Table {
    Table::new(&["ms per request", "weights", "1 row", "(rounds)", "8 rows", "(rounds)", "32 rows", "(rounds)"])
}

/// Measures both modes in turn.
fn time_rows(name: &str, quick: bool, table: &mut Table) -> Result<()> {
    let scratch = TempDir::new()?;
    let original = Original::open(name, scratch.path())?;
    let mut copies = MODES.iter().map(|weights| original.copy(*weights)).collect::<Result<Vec<_>>>()?;
    let mut samples = vec![vec![Vec::new(); BATCHES.len()]; MODES.len()];
    for _ in 0..if quick { 1 } else { ROUNDS } {
        for (batch, rows) in BATCHES.iter().enumerate() {
            let request = original.request(*rows)?;
            for (mode, copy) in copies.iter_mut().enumerate() {
                copy.run(&request)?;
                let stretch = if quick { Duration::ZERO } else { STRETCH };
                let (begun, mut runs) = (Instant::now(), Vec::new());
                while runs.is_empty() || begun.elapsed() < stretch {
                    let started = Instant::now();
                    copy.run(&request)?;
                    runs.push(started.elapsed().as_secs_f64() * 1e3);
                }
                samples[mode][batch].push(median(runs));
            }
        }
    }
    for (weights, samples) in MODES.iter().zip(samples) {
        let mut cells = vec![name.to_owned(), weights.name().to_owned()];
        for rounds in samples {
            cells.extend([figure(median(rounds.iter().copied())), spread(rounds)]);
        }
        table.row(cells);
    }
    Ok(())
}

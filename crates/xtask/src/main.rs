//! `cargo xtask`: the repository's only command system. It needs Rust and Python 3 with pip, and fetches everything else.

mod bench;
mod check;
mod demo;
mod fuzz;
mod process;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The repository's commands", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch ONNX Runtime and the demo models, and build the demo archives, under target/panoply/
    Setup {
        /// Prepare what the tests need as well: clients, test models, reference figures
        #[arg(long)]
        tests: bool,
    },
    /// Start a server with the demo archives, call each of them and keep serving until Ctrl-C
    Demo(demo::Args),
    /// Prepare everything and run every test
    Test {
        /// Passed on to `cargo test --workspace`
        #[arg(last = true)]
        cargo_args: Vec<String>,
    },
    /// Formatting, lints, dependency directions, the rules for source files, generated files
    Check,
    /// Feed everything that reads bytes of strangers with mutations, for so many seconds each
    Fuzz {
        /// Seconds for each target
        #[arg(default_value_t = 60)]
        seconds: u64,
        /// Names of targets; all when none are given
        targets: Vec<String>,
    },
    /// Run the benchmarks (all, or those named)
    Bench {
        /// Names of benchmarks in benches/
        names: Vec<String>,
        /// A smoke run of seconds; its figures mean little
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Setup { tests: false } => setup::for_demo(),
        Command::Setup { tests: true } => setup::for_tests(),
        Command::Demo(args) => demo::run(&args),
        Command::Test { cargo_args } => test::run(&cargo_args),
        Command::Check => check::run(),
        Command::Fuzz { seconds, targets } => fuzz::run(seconds, &targets),
        Command::Bench { names, quick } => bench::run(&names, quick),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! The binary `panoply`.

mod args;
mod gpus;
mod log;
mod machine;
mod memory;
mod options_table;
mod serve;
mod settings;
mod telemetry;
mod trace_export;
mod tracing_config;
mod transport;
mod wiring;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use frontend::LogControl;

use crate::args::{Cli, Command, ServeArgs};
use crate::settings::Settings;

/// The settings are wrong (`EX_USAGE` of BSD's sysexits).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    memory::set_up_allocator();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::OptionsTable => {
            println!("{}", options_table::options_table());
            ExitCode::SUCCESS
        }
        Command::Serve(args) => serve(*args),
    }
}

/// Serves until told to stop. What still runs then (a model that hangs, say) does not hold the process up.
fn run(settings: Settings, log: Arc<dyn LogControl>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve::run(settings, log));
    runtime.shutdown_background();
    result
}

fn serve(args: ServeArgs) -> ExitCode {
    let settings = match Settings::from_args(args) {
        Ok(settings) => settings,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("panoply: {problem}"));
            return ExitCode::from(USAGE);
        }
    };
    let log = match log::start(&settings.log, settings.log_format) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("panoply: {error:#}");
            return ExitCode::from(USAGE);
        }
    };
    match run(settings, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

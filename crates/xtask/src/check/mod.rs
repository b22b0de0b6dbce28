//! `cargo xtask check`: formatting, lints, dependency directions, the rules for source files, generated files.

mod dependencies;
mod sources;

use std::{process::Command, time::Instant};

use anyhow::{Result, bail};

use crate::{process, workspace};

/// What is checked, and how.
type Check = (&'static str, fn() -> Result<()>);

/// Runs every check, whatever the ones before it found, so that one run shows all there is to mend.
pub(crate) fn run() -> Result<()> {
    let checks: [Check; 5] = [
        ("formatting", || cargo(&["fmt", "--all", "--check"])),
        ("source files", sources::check),
        ("dependency directions", dependencies::check),
        ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        // A unit test compares the README's table of options with the one that the server prints. Of the whole workspace,
        // so that dependencies have the features that the other builds gave them.
        ("generated files", || cargo(&["test", "--quiet", "--workspace", "--bin", "panoply", "options_table"])),
    ];
    let failed: Vec<_> =
        checks.into_iter().filter(|(name, check)| !passes(name, *check)).map(|(name, _)| name).collect();
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
    Ok(())
}

fn passes(name: &str, check: fn() -> Result<()>) -> bool {
    let start = Instant::now();
    let outcome = check();
    let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
    eprintln!("{name}: {verdict} ({:.1} s)", start.elapsed().as_secs_f64());
    if let Err(error) = &outcome {
        eprintln!("{error:#}");
    }
    outcome.is_ok()
}

fn cargo(arguments: &[&str]) -> Result<()> {
    process::run(Command::new("cargo").args(arguments).current_dir(workspace::root()))
}

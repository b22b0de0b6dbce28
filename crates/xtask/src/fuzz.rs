//! `cargo xtask fuzz`: the package `tests/fuzz`, with the checks of the development profile.

use std::process::Command;

use anyhow::Result;

use crate::{process, workspace};

pub(crate) fn run(seconds: u64, targets: &[String]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--package", "fuzz", "--", &seconds.to_string()]).args(targets);
    process::run(cargo.current_dir(workspace::root()))
}

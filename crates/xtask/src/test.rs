//! `cargo xtask test`: prepares what the tests need, then runs all of them with plain cargo.

use std::process::Command;

use anyhow::Result;

use crate::{process, setup, workspace};

pub(crate) fn run(cargo_args: &[String]) -> Result<()> {
    setup::for_tests()?;
    process::run(Command::new("cargo").args(["test", "--workspace"]).args(cargo_args).current_dir(workspace::root()))
}

//! `cargo xtask bench`: the benchmarks of the package `benches`, in the release profile.

use std::process::Command;

use anyhow::Result;

use crate::{process, setup, workspace};

pub(crate) fn run(names: &[String]) -> Result<()> {
    setup::for_demo()?;
    let chosen = names.iter().flat_map(|name| ["--bench", name.as_str()]);
    process::run(
        Command::new("cargo").args(["bench", "--package", "benches"]).args(chosen).current_dir(workspace::root()),
    )
}

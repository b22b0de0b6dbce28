//! `cargo xtask bench`: the benchmarks of the package `benches`, in the release profile.

use std::process::Command;

use anyhow::Result;

use crate::{process, setup, workspace};

/// Every benchmark.
const ALL: [&str; 9] =
    ["request", "ensemble", "cold_start", WITH_ZLIB_NG, "batching", "churn", "density", "policies", WITH_TEST_TOOLS];
/// The one that needs what only tests need otherwise.
const WITH_TEST_TOOLS: &str = "perf_analyzer";
/// The one that compares with zlib-ng.
const WITH_ZLIB_NG: &str = "unpack";

pub(crate) fn run(names: &[String], quick: bool) -> Result<()> {
    let names = if names.is_empty() { ALL.map(str::to_owned).to_vec() } else { names.to_vec() };
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has(WITH_TEST_TOOLS) {
        setup::for_tests()?
    } else {
        setup::for_demo()?
    }
    if has(WITH_ZLIB_NG) {
        setup::zlib_ng()?
    }
    let chosen = names.iter().flat_map(|name| ["--bench", name.as_str()]);
    let arguments = quick.then_some(["--", "--quick"]).into_iter().flatten();
    // The whole workspace, so that dependencies have the features that its other builds gave them.
    process::run(
        Command::new("cargo")
            .args(["bench", "--workspace"])
            .args(chosen)
            .args(arguments)
            .current_dir(workspace::root()),
    )
}

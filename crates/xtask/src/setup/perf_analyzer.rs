//! NVIDIA's `perf_analyzer`, unmodified, and the two libraries that it needs beyond what every machine has.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::{
    Setup,
    download::sha256_of,
    key::Key,
    packages::{CUDA_RUNTIME, PERF_ANALYZER},
};
use crate::process;

const B64: &str = "libb64.so.0d";
/// Debian 12's package of it. It is public domain, and on no Python index.
const B64_PACKAGE: &str = "libb64-0d=1.2-5+b1";
const B64_SHA256: &str = "b0e1d6fde8bdccc18c3884144aede064dc82464dd4777275fa80e74c05583e82";

/// `perf_analyzer/`: the program with its libraries beside it. There is none for other platforms.
pub(super) fn make(setup: &Setup) -> Result<()> {
    if (std::env::consts::OS, std::env::consts::ARCH) != ("linux", "x86_64") {
        return Ok(());
    }
    let key = Key::new().package(&PERF_ANALYZER).package(&CUDA_RUNTIME).text(B64_SHA256);
    setup.bench.make("perf_analyzer", &key, |site| {
        fs::create_dir(&site.out)?;
        setup.extract(&PERF_ANALYZER, "tritonclient-2.50.0.data/data/bin/perf_analyzer", &site.out)?;
        setup.extract(&CUDA_RUNTIME, "nvidia/cuda_runtime/lib/libcudart.so.12", &site.out)?;
        if !is_installed(B64)? {
            fetch_b64(&site.scratch, &site.out)?;
        }
        let program = site.out.join("perf_analyzer");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        process::capture(Command::new(program).arg("--version").env("LD_LIBRARY_PATH", &site.out)).map(drop)
    })
}

/// Whether the system's loader finds a library.
fn is_installed(library: &str) -> Result<bool> {
    let known = process::capture(Command::new("/sbin/ldconfig").arg("-p"))?;
    Ok(String::from_utf8_lossy(&known).contains(library))
}

/// Takes the library out of Debian's package, which takes no root.
fn fetch_b64(scratch: &Path, out: &Path) -> Result<()> {
    let advice = "perf_analyzer needs libb64.so.0d: install it (on Debian or Ubuntu: apt-get update && apt-get install libb64-0d)";
    process::capture(Command::new("apt-get").args(["download", B64_PACKAGE]).current_dir(scratch)).context(advice)?;
    let package = fs::read_dir(scratch)?.next().transpose()?.context(advice)?.path();
    let found = sha256_of(&package)?;
    if found != B64_SHA256 {
        bail!("{} has SHA-256 {found}, but {B64_SHA256} is pinned; {advice}", package.display());
    }
    let unpacked = scratch.join("unpacked");
    process::capture(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&unpacked))?;
    fs::copy(unpacked.join("usr/lib/x86_64-linux-gnu").join(B64), out.join(B64))?;
    Ok(())
}

//! Where the binary under test is. It is built here: cargo hands a test only the binaries of its own package.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Beginnings of the variables that describe the package that a test belongs to.
const TOLD_BY_CARGO: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

static PANOPLY: OnceLock<Option<PathBuf>> = OnceLock::new();

/// The binary `panoply`, of this test's profile, brought up to date once.
///
/// # Panics
/// When it does not compile.
pub fn panoply() -> &'static Path {
    PANOPLY.get_or_init(build).as_deref().expect("the binary `panoply` compiles")
}

/// The target folder and the name of the profile's folder in it.
pub(crate) fn target() -> (PathBuf, String) {
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test.ancestors().nth(2).expect("tests lie in <target>/<profile>/deps");
    let target = profile.parent().expect("tests lie in <target>/<profile>/deps");
    (target.to_owned(), profile.file_name().expect("a folder has a name").to_string_lossy().into_owned())
}

/// `None` when it does not compile; cargo has said why.
fn build() -> Option<PathBuf> {
    let (target, profile) = target();
    // The profile `dev` is the one whose folder has another name.
    let profile_name = if profile == "debug" { "dev" } else { &profile };
    let mut cargo = Command::new(env!("CARGO"));
    // Cargo tells a test about its package; build scripts that watch these variables would see a change each time.
    let inherited = std::env::vars_os().map(|(name, _)| name);
    let told = |name: &OsStr| name.to_str().is_some_and(|name| TOLD_BY_CARGO.iter().any(|told| name.starts_with(told)));
    for name in inherited.filter(|name| told(name)) {
        cargo.env_remove(name);
    }
    let built = cargo
        // With the features of `cargo test --workspace`, those that only tests ask for included: else all that depends on
        // tokio would be compiled twice.
        .args(["build", "--quiet", "--workspace", "--bin", "panoply", "--test", "e2e", "--profile", profile_name])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo can be run");
    built.success().then(|| target.join(profile).join("panoply"))
}

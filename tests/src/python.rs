//! Python scripts that speak to a server with the clients that users have.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::PATIENCE;

/// Runs a script of `tests/python` in the environment that `cargo xtask setup --tests` made, and returns what it printed.
///
/// # Panics
/// When it fails; with what it wrote to standard error.
pub async fn python(script: &str, arguments: &[&str]) -> String {
    let interpreter = test_util::artifacts().join("venv/bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let mut command = Command::new(interpreter);
    command.arg("-B").arg(&script).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("the script ends");
    let output = output.expect("the environment has a Python");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed ({}):\n{errors}", script.display(), output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

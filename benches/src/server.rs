//! The real binary as a child process.
//!
//! The end-to-end tests have a starter of their own, which is asynchronous and panics; this one blocks and fails.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::http::{Connection, get};
use crate::machine;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a starting server is asked whether it is ready.
const POLL: Duration = Duration::from_millis(1);

/// Where a server's archives come from.
#[derive(Clone, Debug)]
pub enum Store {
    /// A folder of archives.
    Folder(PathBuf),
    /// A bucket and prefix of an S3 server that knows the credentials of `test_util::s3`.
    S3 {
        /// `http://127.0.0.1:PORT`.
        endpoint: String,
        /// `bucket/prefix`.
        location: String,
    },
}

impl Store {
    fn apply(&self, command: &mut Command) {
        match self {
            Store::Folder(folder) => command.arg("--model-store").arg(folder),
            Store::S3 { endpoint, location } => command
                .args(["--model-store", &format!("s3://{location}"), "--s3-endpoint", endpoint])
                .args(["--s3-region", "us-east-1", "--s3-path-style"])
                .env("AWS_ACCESS_KEY_ID", test_util::s3::ACCESS_KEY_ID)
                .env("AWS_SECRET_ACCESS_KEY", test_util::s3::SECRET_ACCESS_KEY),
        };
    }
}

/// A child process; killed when dropped.
pub struct Server {
    child: Child,
    address: SocketAddr,
    /// `None` for a server that has no gRPC port.
    grpc_address: Option<SocketAddr>,
}

impl Server {
    /// Starts `panoply serve` on free ports and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start, with the end of its log.
    pub fn start(binary: &Path, store: &Store, disk_cache: &Path) -> Result<Self> {
        Self::start_with(binary, store, disk_cache, &[])
    }

    /// The same with further options.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(binary: &Path, store: &Store, disk_cache: &Path, options: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary);
        // Nothing of the machine's own settings may leak in.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_a_setting(name)) {
            command.env_remove(name);
        }
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command.args(["serve", "--http-address", "127.0.0.1", "--log-format", "json"]);
        command.args(["--http-port", "0", "--metrics-port", "0", "--sagemaker-port", "0", "--grpc-port", "0"]);
        command.arg("--disk-cache").arg(disk_cache).arg("--ort-library").arg(machine::library().as_ref());
        store.apply(&mut command);
        command.args(options);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot start panoply")?;
        let log = child.stderr.take().context("invariant: standard error is piped")?;
        let (address, grpc_address) = listening(log)?;
        let server = Server { child, address, grpc_address: Some(grpc_address) };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Starts this executable as a server that prints its address as its first line.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_self(argument: &str) -> Result<Self> {
        let own = std::env::current_exe().context("this executable cannot be found")?;
        let mut command = Command::new(own);
        let mut child = command.arg(argument).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("invariant: standard output is piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("'{line}' is not an address"))?;
        Ok(Server { child, address, grpc_address: None })
    }

    /// Where it listens for HTTP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for gRPC.
    ///
    /// # Errors
    /// When it does not.
    pub fn grpc_address(&self) -> Result<SocketAddr> {
        self.grpc_address.context("this server has no gRPC port")
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_ready(&self) -> Result<()> {
        let start = Instant::now();
        let mut connection = Connection::open(self.address)?;
        while connection.exchange(&get("/v2/health/ready"))?.status != 200 {
            ensure!(start.elapsed() < PATIENCE, "the server does not get ready");
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A child that has ended already cannot be killed, and that is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_a_setting(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("AWS_") || name.starts_with("PANOPLY_")
}

fn is_about_a_package(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// The addresses of the HTTP and the gRPC port, from the log's line "listening". The rest of the log is read and dropped by a thread, so that
/// the server never waits for room in the pipe.
fn listening(log: ChildStderr) -> Result<(SocketAddr, SocketAddr)> {
    let mut lines = BufReader::new(log).lines();
    let mut seen = Vec::new();
    for line in lines.by_ref() {
        let line = line.context("the server's log cannot be read")?;
        if let Some(addresses) = addresses(&line) {
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(addresses);
        }
        seen.push(line);
    }
    bail!("the server ended before it listened:\n{}", seen.join("\n"))
}

fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = &line["fields"];
    let address = |port| fields[port].as_str()?.parse().ok();
    (fields["message"] == "listening").then(|| Some((address("http")?, address("grpc")?)))?
}

/// The binary `panoply` in this benchmark's own target folder, brought up to date.
///
/// # Errors
/// When it does not compile.
pub fn build() -> Result<PathBuf> {
    let own = std::env::current_exe().context("this executable cannot be found")?;
    let profile = own.ancestors().nth(2).context("benchmarks lie in <target>/<profile>/deps")?;
    let target = profile.parent().context("benchmarks lie in <target>/<profile>/deps")?;
    // The profile `bench` inherits from `release` and shares its folder.
    let is_release = profile.file_name().is_some_and(|name| name == "release");
    let mut command = Command::new(env!("CARGO"));
    // Cargo told this process about its package, and crates whose build scripts read that would be built anew.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_about_a_package(name)) {
        command.env_remove(name);
    }
    let status = command
        .args(["build", "--quiet", "--workspace", "--bin", "panoply", "--target-dir"])
        .arg(target)
        .args(is_release.then_some("--release"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("cargo cannot be run")?;
    ensure!(status.success(), "the binary `panoply` does not compile");
    Ok(profile.join("panoply"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_read_from_the_log() {
        let line = r#"{"level":"INFO","fields":{"message":"listening","http":"127.0.0.1:81","grpc":"127.0.0.1:82"}}"#;
        let expected = ["127.0.0.1:81", "127.0.0.1:82"].map(|address| address.parse().unwrap());
        assert_eq!(addresses(line), Some(expected.into()));
        assert_eq!(addresses(r#"{"fields":{"message":"ready"}}"#), None);
    }
}

//! NVIDIA's `perf_analyzer`, unmodified, as the load: how it is called, and what its report says.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The protocols that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// KServe v2 over HTTP/1.1, with binary tensors.
    Http,
    /// `ModelInfer` over gRPC, as the client does it by itself: up to six clients share one connection.
    Grpc,
    /// `ModelInfer` over gRPC with a connection for each client, as over HTTP.
    GrpcUnshared,
}

impl Protocol {
    /// What `-i` takes.
    fn option(self) -> &'static str {
        match self {
            Protocol::Http => "HTTP",
            Protocol::Grpc | Protocol::GrpcUnshared => "gRPC",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Http => "HTTP",
            Protocol::Grpc => "gRPC",
            Protocol::GrpcUnshared => "gRPC, a connection each",
        })
    }
}

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// How the table calls it.
    pub name: &'static str,
    /// The model.
    pub model: &'static str,
    /// Options that say what its requests hold.
    pub options: &'static [&'static str],
}

/// What one run reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Inferences a second.
    pub per_second: f64,
    /// The median latency, in microseconds.
    pub p50: f64,
    /// The latency that 99 % stayed within, in microseconds.
    pub p99: f64,
}

/// The program and the libraries that it needs, as `cargo xtask setup --tests` puts them down.
#[derive(Clone, Debug)]
pub struct PerfAnalyzer {
    folder: PathBuf,
}

impl PerfAnalyzer {
    /// The one in `target/panoply`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn find() -> Result<Self> {
        let folder = test_util::artifacts().join("perf_analyzer");
        if !folder.join("perf_analyzer").is_file() {
            bail!("there is no {}: run `cargo xtask setup --tests`", folder.display());
        }
        Ok(PerfAnalyzer { folder })
    }

    /// Runs until three windows in a row agree, or ten were measured.
    ///
    /// # Errors
    /// When it fails, with what it printed.
    pub fn run(
        &self,
        workload: &Workload,
        protocol: Protocol,
        server: SocketAddr,
        clients: usize,
        window: Duration,
    ) -> Result<Report> {
        let folder = tempfile::tempdir()?;
        let report = folder.path().join("report.csv");
        let mut command = Command::new(self.folder.join("perf_analyzer"));
        command.env("LD_LIBRARY_PATH", &self.folder).stdin(Stdio::null()).current_dir(folder.path());
        if protocol == Protocol::GrpcUnshared {
            command.env("TRITON_CLIENT_GRPC_CHANNEL_MAX_SHARE_COUNT", "1");
        }
        command.args(["-m", workload.model, "-i", protocol.option(), "-u", &server.to_string()]);
        command.args(["--concurrency-range", &clients.to_string(), "--max-threads", &clients.to_string()]);
        command.args(["-p", &window.as_millis().to_string(), "-s", "20", "-r", "10"]);
        command.args(workload.options).arg("-f").arg(&report);
        let output = command.output().context("perf_analyzer cannot be run")?;
        let printed = || String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
        let text = std::fs::read_to_string(&report)
            .with_context(|| format!("perf_analyzer wrote no report ({}):\n{}", output.status, printed()))?;
        parse(&text).with_context(|| format!("perf_analyzer's report is not understood:\n{text}"))
    }
}

/// The report's one line of figures.
fn parse(csv: &str) -> Result<Report> {
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().context("it is empty")?.split(',').collect();
    let values: Vec<&str> = lines.next().context("it has no figures")?.split(',').collect();
    let figure = |name: &str| -> Result<f64> {
        let column = names.iter().position(|column| *column == name).with_context(|| format!("no column '{name}'"))?;
        values.get(column).and_then(|value| value.parse().ok()).with_context(|| format!("no figure for '{name}'"))
    };
    Ok(Report { per_second: figure("Inferences/Second")?, p50: figure("p50 latency")?, p99: figure("p99 latency")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read_by_the_names_of_its_columns() {
        let csv =
            "Concurrency,Inferences/Second,Client Send,p50 latency,p90 latency,p99 latency\n4,1234.5,1,50,60,70\n";
        assert_eq!(parse(csv).unwrap(), Report { per_second: 1234.5, p50: 50.0, p99: 70.0 });
        assert!(parse("Concurrency\n4\n").unwrap_err().to_string().contains("Inferences/Second"));
    }
}

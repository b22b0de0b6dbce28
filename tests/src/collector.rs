//! An OpenTelemetry collector (`rotel`, from PyPI), whose log is read to know which spans it was sent.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::until;

/// A span that the collector was sent.
#[derive(Clone, Debug, Default)]
pub struct CollectedSpan {
    /// The trace, in hexadecimal digits.
    pub trace: String,
    /// The span.
    pub id: String,
    /// The span that it is within; empty for none.
    pub parent: String,
    /// What was done.
    pub name: String,
    /// When it began and ended, in nanoseconds.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// Attributes as `name` and `Type(value)`.
    pub attributes: BTreeMap<String, String>,
}

/// A collector that runs until this is dropped.
pub struct Collector {
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
    _child: Child,
    _folder: TempDir,
}

impl Collector {
    /// Starts one, and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Collector {
        let folder = TempDir::new().expect("a temporary folder");
        let [port, grpc] = free_ports();
        let mut command = Command::new(program());
        command.args([
            "start",
            "--exporter",
            "blackhole",
            "--debug-log",
            "traces",
            "--debug-log-verbosity",
            "detailed",
        ]);
        command.arg(format!("--otlp-http-endpoint=127.0.0.1:{port}"));
        command.arg(format!("--otlp-grpc-endpoint=127.0.0.1:{grpc}"));
        command.arg("--pid-file").arg(folder.path().join("pid")).arg("--log-file").arg(folder.path().join("log"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().expect("the collector starts");
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, output) = (lines.clone(), child.stdout.take().expect("standard output is captured"));
        tokio::spawn(async move {
            let mut read = BufReader::new(output).lines();
            while let Ok(Some(line)) = read.next_line().await {
                kept.lock().push(line);
            }
        });
        until("the collector listens", async || tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok())
            .await;
        Collector { port, lines, _child: child, _folder: folder }
    }

    /// Where spans go, as `--trace-config opentelemetry,url=` wants it.
    pub fn url(&self) -> String {
        format!("127.0.0.1:{}/v1/traces", self.port)
    }

    /// Whether the collector was told this about the server, as `name: Type(value)`.
    pub fn has_resource(&self, attribute: &str) -> bool {
        self.lines.lock().iter().any(|line| line.contains(attribute))
    }

    /// Everything that was sent so far.
    pub fn spans(&self) -> Vec<CollectedSpan> {
        let mut spans: Vec<CollectedSpan> = Vec::new();
        for line in self.lines.lock().iter() {
            if line.starts_with("Span #") {
                spans.push(CollectedSpan::default());
            }
            if let Some(span) = spans.last_mut() {
                span.read(line);
            }
        }
        spans
    }

    /// Waits for a span of this name in a trace, and returns the trace's spans.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn trace_with(&self, trace: &str, name: &str) -> Vec<CollectedSpan> {
        until("the span arrives", async || {
            let spans: Vec<_> = self.spans().into_iter().filter(|span| span.trace == trace).collect();
            // The last line of the last span is not read before the next thing is printed.
            let whole = |span: &CollectedSpan| span.name == name && !span.attributes.is_empty();
            spans.iter().any(whole).then_some(spans)
        })
        .await
    }
}

impl CollectedSpan {
    fn read(&mut self, line: &str) {
        if let Some((name, value)) = line.trim_start().strip_prefix("-> ").and_then(|rest| rest.split_once(": ")) {
            self.attributes.insert(name.to_owned(), value.to_owned());
            return;
        }
        let Some((name, value)) = line.split_once(": ").map(|(name, value)| (name.trim(), value.trim())) else {
            return;
        };
        match name {
            "Trace ID" => self.trace = value.to_owned(),
            "Parent ID" => self.parent = value.to_owned(),
            "ID" => self.id = value.to_owned(),
            "Name" => self.name = value.to_owned(),
            "Start time" => self.start = value.parse().expect("nanoseconds"),
            "End time" => self.end = value.parse().expect("nanoseconds"),
            _ => {}
        }
    }
}

fn free_ports() -> [u16; 2] {
    let held = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    held.map(|listener| listener.local_addr().expect("bound").port())
}

/// The collector's program in the environment that `cargo xtask setup --tests` made.
fn program() -> PathBuf {
    let packages = test_util::artifacts().join("venv/lib");
    let versions = std::fs::read_dir(&packages).expect("the environment is made");
    let programs = versions.flatten().map(|version| version.path().join("site-packages/rotel/rotel-agent"));
    programs.into_iter().find(|program| program.is_file()).expect("the environment has rotel")
}

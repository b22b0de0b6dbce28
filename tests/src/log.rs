//! The log of a server: read line by line as it is written, kept for the case that a test fails.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Lines of a log, oldest first; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

/// Where a server listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    /// None where metrics are not served.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) sagemaker: SocketAddr,
}

impl Log {
    /// Reads until the writer closes its end.
    pub(crate) fn follow(&self, source: impl AsyncRead + Send + Unpin + 'static) {
        let lines = self.0.clone();
        tokio::spawn(async move {
            let mut source = BufReader::new(source).lines();
            while let Ok(Some(line)) = source.next_line().await {
                lines.lock().push(line);
            }
        });
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().join("\n")
    }

    /// The addresses in the line "listening", once it is there.
    pub(crate) fn addresses(&self) -> Option<Addresses> {
        self.0.lock().iter().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let fields = &line["fields"];
            let address = |name: &str| fields[name].as_str()?.parse().ok();
            (fields["message"] == "listening").then_some(())?;
            Some(Addresses {
                http: address("http")?,
                grpc: address("grpc")?,
                metrics: address("metrics"),
                sagemaker: address("sagemaker")?,
            })
        })
    }

    /// How many lines hold all of these parts.
    pub(crate) fn count(&self, parts: &[&str]) -> usize {
        self.0.lock().iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }
}

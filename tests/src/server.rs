//! A running server.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::launch::Launch;
use crate::log::{Addresses, Log};
use crate::{Http, Metrics, PATIENCE, until};

/// How long a server whose test is over may take to end before it is killed.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// A server as a child process. Ends with the test; where that fails, the server's log is printed.
pub struct Server {
    child: Child,
    log: Log,
    addresses: Addresses,
    http: Http,
    /// The disk cache must outlive the server.
    _launch: Launch,
}

impl Server {
    pub(crate) async fn start(launch: &Launch) -> Server {
        let mut child = launch.command().spawn().expect("the binary starts");
        let log = Log::default();
        log.follow(child.stderr.take().expect("standard error is captured"));
        let start = Instant::now();
        let addresses = loop {
            if let Some(addresses) = log.addresses() {
                break addresses;
            }
            let ended = child.try_wait().expect("a child can be waited for");
            assert!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "the server does not listen (ended: {ended:?}); its log:\n{}",
                log.text()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let server = Server { child, log, addresses, http: Http::new(), _launch: launch.clone() };
        // Whatever the ports speak.
        until("the server is ready", async || (server.log_lines_with(&[r#""message":"ready""#]) > 0).then_some(()))
            .await;
        server
    }

    /// The client that this server's own methods use.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// A URL on the HTTP port.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.http)
    }

    /// A URL on the port of the SageMaker container contract.
    pub fn container_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.sagemaker)
    }

    /// `host:port` of the HTTP port.
    pub fn address(&self) -> String {
        self.addresses.http.to_string()
    }

    /// `host:port` of the gRPC port.
    pub fn grpc_address(&self) -> String {
        self.addresses.grpc.to_string()
    }

    /// `GET` on the HTTP port.
    pub async fn get(&self, path: &str) -> crate::Answer {
        self.http.get(&self.url(path)).await
    }

    /// Invokes a target model through `/invocations` with a JSON body.
    pub async fn invoke(&self, target: &str, body: &serde_json::Value) -> crate::Answer {
        self.http.invoke(&self.url("/invocations"), target, body).await
    }

    /// The metrics of this moment.
    pub async fn metrics(&self) -> Metrics {
        let address = self.addresses.metrics.expect("metrics are served");
        let answer = self.http.get(&format!("http://{address}/metrics")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics::parse(&answer.text())
    }

    /// The processor time that the server has had so far, in ticks of the kernel's clock (10 ms).
    ///
    /// # Panics
    /// When the server does not run.
    pub fn processor_ticks(&self) -> u64 {
        let pid = self.pid().expect("the server runs").as_raw_nonzero();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
        // After the name, which is in parentheses, the 12th and 13th: in user mode and in the kernel.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        fields.map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// Bytes of memory that the server holds at this moment.
    ///
    /// # Panics
    /// When it has ended.
    pub fn memory(&self) -> u64 {
        self.told("VmRSS") << 10
    }

    /// How many threads the server has at this moment.
    ///
    /// # Panics
    /// When it has ended.
    pub fn threads(&self) -> u64 {
        self.told("Threads")
    }

    /// Where a path of the server's own is found, which may see file systems that others do not.
    ///
    /// # Panics
    /// When it has ended.
    pub fn path(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.pid().expect("the server runs").as_raw_nonzero());
        Path::new(&root).join(path.strip_prefix("/").unwrap_or(path))
    }

    /// How many lines of the log hold all of these parts.
    pub fn log_lines_with(&self, parts: &[&str]) -> usize {
        self.log.count(parts)
    }

    /// The most memory that the server has held so far, in bytes.
    ///
    /// # Panics
    /// When the server has ended already.
    pub fn peak_memory(&self) -> u64 {
        self.told("VmHWM") << 10
    }

    /// A number that Linux tells of the server's process.
    fn told(&self, name: &str) -> u64 {
        let pid = self.pid().expect("the server runs").as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|rest| rest.split_whitespace().next()).expect("Linux tells it");
        number.parse().expect("a number")
    }

    /// Sends SIGTERM, and does not wait.
    ///
    /// # Panics
    /// When the server has ended already.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills the server on the spot, as a crash or the kernel would, and waits for its end.
    ///
    /// # Panics
    /// When the server has ended already.
    pub async fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().await.expect("a child can be waited for");
    }

    /// Waits for the server's end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("the server ends").expect("a child can be waited for")
    }

    /// SIGTERM, and the server's end, which must be a good one.
    ///
    /// # Panics
    /// When its exit status is not 0.
    pub async fn stop(mut self) {
        self.terminate();
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "the server ended badly; its log:\n{}", self.log.text());
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid().expect("the server runs"), signal).expect("a child can be signalled");
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()?).ok()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log.text());
        }
        // A server that has ended has no id any more.
        let Some(pid) = self.pid() else { return };
        let _ = kill_process(pid, Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < LAST_PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = kill_process(pid, Signal::KILL);
    }
}

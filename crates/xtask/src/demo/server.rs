//! The demo's server: started on free ports, watched until it is ready, stopped with SIGTERM.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::client::Client;
use crate::workspace;

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const LOG_LINES_SHOWN: usize = 20;

/// The ports of the HTTP, gRPC, metrics and SageMaker listeners.
#[derive(Clone, Copy)]
struct Ports {
    http: u16,
    grpc: u16,
    metrics: u16,
    sagemaker: u16,
}

/// A running server; killed when dropped.
pub(super) struct Server {
    child: Child,
    ports: Ports,
}

/// Where the server's log goes.
pub(super) fn log_file() -> PathBuf {
    workspace::prepared().join("demo.log")
}

impl Server {
    /// Starts the server with an empty disk cache, in a process group of its own: Ctrl-C is for us to pass on.
    pub(super) fn start(binary: &Path, any_ports: bool) -> Result<Self> {
        let ports = Ports::choose(any_ports)?;
        let (prepared, cache) = (workspace::prepared(), workspace::prepared().join("demo-cache"));
        if cache.exists() {
            fs::remove_dir_all(&cache)?;
        }
        let log = File::create(log_file())?;
        let mut command = Command::new(binary);
        command.arg("serve").arg("--model-store").arg(prepared.join("demo-store")).arg("--disk-cache").arg(cache);
        command.arg("--ort-library").arg(prepared.join("onnxruntime/libonnxruntime.so"));
        command.args(["--http-address", "127.0.0.1", "--http-port", &ports.http.to_string()]);
        command.args(["--grpc-port", &ports.grpc.to_string()]);
        command.args(["--metrics-port", &ports.metrics.to_string(), "--sagemaker-port", &ports.sagemaker.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        Ok(Self { child, ports })
    }

    pub(super) fn http_port(&self) -> u16 {
        self.ports.http
    }

    pub(super) fn wait_until_ready(&mut self) -> Result<()> {
        let (client, start) = (Client::new(self.ports.http), Instant::now());
        while !client.is_ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at once ({status}):\n{}", log_tail());
            }
            if start.elapsed() > READY_WITHIN {
                bail!("the server was not ready within {READY_WITHIN:?}:\n{}", log_tail());
            }
            thread::sleep(POLL);
        }
        eprintln!("the server is ready after {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }

    pub(super) fn print_urls(&self) {
        let Ports { http, grpc, metrics, sagemaker } = self.ports;
        println!("\nThe server keeps running until Ctrl-C. Archives are in {}.", store().display());
        println!("  inference  http://127.0.0.1:{http}/v2      (also /invocations, /endpoints/NAME/invocations)");
        println!("  gRPC       127.0.0.1:{grpc}");
        println!("  metrics    http://127.0.0.1:{metrics}/metrics");
        println!("  SageMaker  http://127.0.0.1:{sagemaker}/ping    (the container contract)");
        println!("  log        {}", log_file().display());
        println!("Try, from another terminal:");
        println!("  curl -H 'X-Amzn-SageMaker-Target-Model: minilm.tar.gz' http://127.0.0.1:{http}/invocations \\");
        println!(
            "    -d '{{\"inputs\":[{{\"name\":\"TEXT\",\"datatype\":\"BYTES\",\"shape\":[1,1],\"data\":[\"Good morning\"]}}]}}'"
        );
        println!("  curl -H 'X-Amzn-SageMaker-Target-Model: mobilenet.tar.gz' http://127.0.0.1:{http}/invocations \\");
        let photo = workspace::prepared().join("demo-requests");
        let json_size = fs::metadata(photo.join("photo.json")).map_or(0, |metadata| metadata.len());
        println!("    -H 'Inference-Header-Content-Length: {json_size}' --data-binary @{}/photo.body", photo.display());
    }

    /// Returns when `stop` has a message and the server has ended; an error when the server ends by itself.
    pub(super) fn serve_until(&mut self, stop: &Receiver<()>) -> Result<()> {
        loop {
            match stop.recv_timeout(POLL) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return self.stop(),
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended by itself ({status}):\n{}", log_tail());
            }
        }
    }

    /// SIGTERM, then waits for what is in flight; an error if the server does not end well.
    pub(super) fn stop(&mut self) -> Result<()> {
        eprintln!("stopping the server");
        // `kill` as a program is missing on slim machines, as part of the shell it never is.
        let signal = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &self.child.id().to_string()]).status()?;
        let status = if signal.success() { self.ended_within(STOP_WITHIN)? } else { None };
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the server ended badly ({status}):\n{}", log_tail()),
            None => bail!("the server did not end within {STOP_WITHIN:?} of SIGTERM:\n{}", log_tail()),
        }
    }

    fn ended_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            let status = self.child.try_wait()?;
            if status.is_some() || start.elapsed() > limit {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Server {
    /// Nothing to do for a server that has ended: killing it then does nothing.
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Ports {
    /// The server's defaults where they are free, else (or where `any` is asked for) whatever the system gives.
    fn choose(any: bool) -> Result<Self> {
        // All are held until each has its number, so that no two are the same.
        let listeners = [8000, 8001, 8002, 8080].map(|default| listen(if any { 0 } else { default }));
        let [http, grpc, metrics, sagemaker] = listeners;
        let (http, grpc, metrics, sagemaker) = (http?, grpc?, metrics?, sagemaker?);
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        Ok(Self { http: port(&http)?, grpc: port(&grpc)?, metrics: port(&metrics)?, sagemaker: port(&sagemaker)? })
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    taken.or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).context("no port is free on 127.0.0.1")
}

fn store() -> PathBuf {
    workspace::prepared().join("demo-store")
}

fn log_tail() -> String {
    let log = fs::read_to_string(log_file()).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

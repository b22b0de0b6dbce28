//! How a server is started: options, environment, and the folders that outlive it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::process::Command;

use crate::binary::panoply;
use crate::server::Server;

/// A way to start servers, again and again with the same disk cache.
#[derive(Clone)]
pub struct Launch {
    options: Vec<String>,
    environment: Vec<(String, String)>,
    folder: Arc<TempDir>,
    /// The size of a file system that only the server sees, below its disk cache.
    disk: Option<String>,
}

impl Default for Launch {
    fn default() -> Self {
        Launch::new()
    }
}

impl Launch {
    /// On free ports of this machine, with an empty disk cache and without models.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    pub fn new() -> Self {
        let folder = Arc::new(TempDir::new().expect("a temporary folder"));
        let launch = Launch { options: Vec::new(), environment: Vec::new(), folder, disk: None };
        let library = test_util::artifacts().join("onnxruntime/libonnxruntime.so");
        let cache = launch.disk_cache().display().to_string();
        launch
            .option("--http-address", "127.0.0.1")
            .option("--http-port", "0")
            .option("--grpc-port", "0")
            .option("--metrics-port", "0")
            .option("--sagemaker-port", "0")
            .option("--log-format", "json")
            // Load balancers need time to notice; most tests have none.
            .option("--drain-delay", "0s")
            .option("--disk-cache", &cache)
            .option("--ort-library", &library.display().to_string())
    }

    /// With archives from a folder.
    pub fn folder(store: &Path) -> Self {
        Launch::new().option("--model-store", &store.display().to_string())
    }

    /// With archives from `bucket/prefix` of an S3 server, and the credentials in the environment, as the AWS SDK has them.
    pub fn s3(endpoint: &str, bucket_and_prefix: &str, access_key: &str, secret_key: &str) -> Self {
        Launch::new()
            .option("--model-store", &format!("s3://{bucket_and_prefix}"))
            .option("--s3-endpoint", endpoint)
            .option("--s3-region", "us-east-1")
            .flag("--s3-path-style")
            .variable("AWS_ACCESS_KEY_ID", access_key)
            .variable("AWS_SECRET_ACCESS_KEY", secret_key)
    }

    /// With an option and its value; a later one replaces an earlier one of the same name.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        if let Some(position) = self.options.iter().position(|option| option == name) {
            self.options.drain(position..position + 2);
        }
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// With an option that takes no value, or may be given several times.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.options.push(flag.to_owned());
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a file system of this size (as `mount` has it) for the disk cache, a new one at each start, which only the server
    /// sees; `None`, and why on standard error, where this process may not make one.
    ///
    /// # Panics
    /// When root cannot make one for another reason than that even root may not, as in most containers.
    #[must_use]
    pub fn with_disk_of(mut self, size: &str) -> Option<Self> {
        self.disk = Some(size.to_owned());
        let mut mount = self.in_own_namespace(OsStr::new("true"));
        let (succeeded, why) = match mount.env("LC_ALL", "C").output() {
            Ok(output) => (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => (false, format!("unshare(1): {error}")),
        };
        if succeeded {
            return Some(self);
        }
        let is_forbidden = ["not permitted", "permission denied"].iter().any(|text| why.to_lowercase().contains(text));
        assert!(is_forbidden || !rustix::process::geteuid().is_root(), "a file system cannot be mounted: {why}");
        eprintln!("SKIPPED, nothing is shown here: a file system cannot be mounted, which takes root: {why}");
        None
    }

    /// A program that sees a file system of its own where the disk cache is.
    fn in_own_namespace(&self, program: &OsStr) -> std::process::Command {
        const MOUNT: &str = r#"mkdir -p "$1" && mount -t tmpfs -o "size=$2" tmpfs "$1" && shift 2 && exec "$@""#;
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", MOUNT, "sh"]);
        command.arg(self.disk_cache()).arg(self.disk.as_deref().unwrap_or_default()).arg(program);
        command
    }

    /// The folder of the disk cache.
    pub fn disk_cache(&self) -> PathBuf {
        self.folder.path().join("disk-cache")
    }

    /// The command, its log captured.
    pub(crate) fn command(&self) -> Command {
        let mut command = match self.disk {
            Some(_) => Command::from(self.in_own_namespace(panoply().as_os_str())),
            None => Command::new(panoply()),
        };
        // Nothing of the machine's own AWS or Panoply settings may leak in.
        let own = |name: &OsStr| {
            let name = name.to_string_lossy();
            ["AWS_", "OTEL_", "PANOPLY_"].iter().any(|prefix| name.starts_with(prefix))
        };
        std::env::vars_os().filter(|(name, _)| own(name)).for_each(|(name, _)| {
            command.env_remove(name);
        });
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", self.folder.path());
        command.arg("serve").args(&self.options).envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Starts a server and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready; with its log.
    pub async fn start(&self) -> Server {
        Server::start(self).await
    }

    /// Runs a server that is expected to end by itself, at once: its exit code and what it wrote to standard error.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn run(&self) -> (Option<i32>, String) {
        let child = self.command().spawn().expect("the binary starts");
        let output = tokio::time::timeout(crate::PATIENCE, child.wait_with_output()).await;
        let output = output.expect("the server ends by itself").expect("a child can be waited for");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

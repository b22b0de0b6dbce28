//! TLS of a port: certificate and key, and for mutual TLS the roots below which clients must have a certificate. Files that
//! change are read again, so that certificates are renewed without a restart.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// How often files are looked at for a change.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// HTTP/2 first: gRPC knows nothing else.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and a root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Roots of clients' certificates; a client without one is refused. `None` asks clients for nothing.
    pub client_roots: Option<PathBuf>,
}

/// TLS, ready to be spoken.
pub struct Tls {
    files: TlsFiles,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    stamp: Stamp,
}

/// What tells that files have changed: the time and length of each.
type Stamp = Vec<Option<(SystemTime, u64)>>;

impl TlsFiles {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_roots).map(PathBuf::as_path)
    }

    fn stamp(&self) -> Stamp {
        let of = |path: &Path| {
            let metadata = path.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        self.paths().map(of).collect()
    }

    fn config(&self) -> Result<ServerConfig, Vec<String>> {
        let certificates = certificates(&self.certificate);
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| format!("{}: no private key in PEM: {error}", self.key.display()));
        let roots = self.client_roots.as_deref().map(roots).transpose();
        let (certificates, key, roots) = match (certificates, key, roots) {
            (Ok(certificates), Ok(key), Ok(roots)) => (certificates, key, roots),
            (certificates, key, roots) => {
                return Err([certificates.err(), key.err(), roots.err()].into_iter().flatten().collect());
            }
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| vec![error.to_string()])?;
        let builder = match roots {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| vec![error.to_string()])?)
            }
        };
        let mut config = builder.with_single_cert(certificates, key).map_err(|error| {
            let (certificate, key) = (self.certificate.display(), self.key.display());
            vec![format!("{certificate} and {key} cannot be used together: {error}")]
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    match read {
        Ok(certificates) if Vec::is_empty(&certificates) => Err(format!("{}: no certificate in PEM", file.display())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{}: no certificate in PEM: {error}", file.display())),
    }
}

fn roots(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(roots)
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Every problem with them, one line each.
    pub fn load(files: TlsFiles) -> Result<Self, Vec<String>> {
        let stamp = files.stamp();
        let config = Arc::new(files.config()?);
        Ok(Tls { files, current: Mutex::new(Current { config, stamp }) })
    }

    /// Shakes hands with a client.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self.current.lock().config.clone();
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Reads files again when they have changed. What cannot be read changes nothing.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let tls = self.clone();
            // A thread of its own, because a file system may hang.
            if tokio::task::spawn_blocking(move || tls.refresh()).await.is_err() {
                return;
            }
        }
    }

    fn refresh(&self) {
        let stamp = self.files.stamp();
        if stamp == self.current.lock().stamp {
            return;
        }
        match self.files.config() {
            Ok(config) => {
                *self.current.lock() = Current { config: Arc::new(config), stamp };
                tracing::info!(certificate = %self.files.certificate.display(), "read a new certificate");
            }
            // One of several files may not be written yet.
            Err(problems) => tracing::warn!(problems = problems.join("; "), "the old certificate stays in use"),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}

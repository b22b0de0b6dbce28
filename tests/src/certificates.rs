//! Certificates made for one test: a root, a server's and a client's below it, in files.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// A folder with `root.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
pub struct Certificates {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for Certificates {
    fn default() -> Self {
        Certificates::new()
    }
}

impl Certificates {
    /// For a server on this machine.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn new() -> Self {
        let mut root = CertificateParams::new([]).expect("no names");
        // A certificate whose issuer has its own name would count as self-signed.
        root.distinguished_name.push(DnType::CommonName, "root");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let folder = TempDir::new().expect("a temporary folder");
        let certificate = root.self_signed(&key).expect("a root");
        std::fs::write(folder.path().join("root.pem"), certificate.pem()).expect("written");
        let certificates = Certificates { folder, issuer: Issuer::new(root, key) };
        certificates.issue("server");
        certificates.issue("client");
        certificates
    }

    /// Makes `name.pem` and `name.key` anew; the old ones are replaced.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn issue(&self, name: &str) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).expect("written");
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).expect("written");
    }

    /// The path of a file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }
}

//! TLS and mutual TLS of both ports, with unmodified clients; certificates that are renewed; handshakes that never end.

use std::time::Duration;

use e2e::{Certificates, FolderStore, Launch, Server, Store, echo, python, until};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::assert_has;

struct Scene {
    _store: FolderStore,
    certificates: Certificates,
    server: Server,
}

impl Scene {
    async fn new(options: impl FnOnce(Launch, &Certificates) -> Launch) -> Self {
        let store = FolderStore::new();
        store.put("echo.tar.gz", &echo());
        let certificates = Certificates::new();
        let server = options(store.launch(), &certificates).start().await;
        Scene { _store: store, certificates, server }
    }

    /// Runs the script's part for one kind of client.
    async fn client(&self, kind: &str, address: &str) -> String {
        let folder = self.certificates.file("").display().to_string();
        python("tls_client.py", &[kind, address, &folder]).await
    }
}

fn http(launch: Launch, certificates: &Certificates) -> Launch {
    launch
        .option("--http-server-cert", &certificates.path("server.pem"))
        .option("--http-server-key", &certificates.path("server.key"))
}

fn grpc(launch: Launch, certificates: &Certificates) -> Launch {
    launch
        .option("--grpc-server-cert", &certificates.path("server.pem"))
        .option("--grpc-server-key", &certificates.path("server.key"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tritons_clients_speak_tls() {
    let scene = Scene::new(|launch, files| grpc(http(launch, files), files).option("--grpc-use-ssl", "true")).await;
    for (kind, address) in [("http", scene.server.address()), ("grpc", scene.server.grpc_address())] {
        assert_eq!(scene.client(kind, &address).await.trim(), "answered", "{kind}");
        assert_has(&scene.client(&format!("{kind}-plain"), &address).await, &["refused"]);
        assert_has(&scene.client(&format!("{kind}-strange"), &address).await, &["refused"]);
    }
    scene.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_refuses_clients_without_a_certificate() {
    let scene = Scene::new(|launch, files| {
        let launch = http(launch, files).option("--http-root-cert", &files.path("root.pem"));
        grpc(launch, files).option("--grpc-root-cert", &files.path("root.pem")).flag("--grpc-use-ssl-mutual")
    })
    .await;
    for (kind, address) in [("http", scene.server.address()), ("grpc", scene.server.grpc_address())] {
        assert_eq!(scene.client(&format!("{kind}-mutual"), &address).await.trim(), "answered", "{kind}");
        assert_has(&scene.client(kind, &address).await, &["refused"]);
    }
    scene.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let scene = Scene::new(http).await;
    let address = scene.server.address();
    let shown = async || scene.client("certificate", &address).await;
    let first = shown().await;
    std::fs::write(scene.certificates.file("server.pem"), "no certificate").expect("written");
    until("the server says that it keeps the old one", async || {
        (scene.server.log_lines_with(&["the old certificate stays in use", "server.pem"]) > 0).then_some(())
    })
    .await;
    assert_eq!(shown().await, first);
    scene.certificates.issue("server");
    until("the server has read the new one", async || {
        (scene.server.log_lines_with(&["read a new certificate", "server.pem"]) > 0).then_some(())
    })
    .await;
    assert_ne!(shown().await, first);
    scene.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_shake_hands_hold_up_nobody_and_are_closed() {
    let scene = Scene::new(|launch, files| http(launch, files).option("--idle-timeout", "2s")).await;
    let address = scene.server.address();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(&address).await.expect("the server listens"));
    }
    assert_eq!(scene.client("http", &address).await.trim(), "answered");
    for mut stream in silent {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0; 16])).await;
        assert!(read.expect("closed in time").map_or(true, |count| count == 0));
    }
    scene.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_checked_before_a_port_is_bound() {
    let files = Certificates::new();
    let launch = grpc(http(Launch::new(), &files), &files).option("--grpc-use-ssl", "1");
    let launch = launch.option("--http-server-cert", &files.path("client.key"));
    let launch = launch.option("--grpc-server-key", &files.path("client.key"));
    let (code, text) = launch.run().await;
    assert_eq!(code, Some(64), "{text}");
    assert_has(&text, &["client.key: no certificate in PEM", "cannot be used together", "server.pem"]);
}

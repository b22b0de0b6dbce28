//! Settings: all problems at once, exit code 64, and nothing is bound.

use std::net::TcpListener;
use std::process::Command;

use e2e::{FolderStore, Launch, Store, echo};

use crate::{ask_echo, assert_has};

#[tokio::test(flavor = "multi_thread")]
async fn all_problems_are_reported_at_once_and_nothing_is_bound() {
    // The port is taken: binding it would be another error.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("a bound socket").port().to_string();
    let launch = Launch::new()
        .option("--http-port", &port)
        .option("--metrics-port", &port)
        .option("--model-store", "gs://bucket")
        .option("--model-repository", "/no/such/repository")
        .option("--ort-library", "/no/such/library.so")
        .option("--load-timeout", "0s");
    let (code, text) = launch.run().await;
    assert_eq!(code, Some(64), "{text}");
    let problems = ["gs", "--model-repository", "/no/such/library.so", "--load-timeout", "--metrics-port"];
    assert_has(&text, &problems);
    assert!(!text.contains("listening") && !text.contains("cannot listen"), "{text}");
    assert!(text.lines().count() >= problems.len(), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_cannot_be_read_name_their_option() {
    for (option, value) in [
        ("--model-memory", "lots"),
        ("--infer-timeout", "soon"),
        ("--http-port", "70000"),
        ("--log-format", "xml"),
        ("--weights", "shared"),
        ("--log", "a=b=c"),
    ] {
        let (code, text) = Launch::new().option(option, value).run().await;
        assert_eq!(code, Some(64), "{option}: {text}");
        assert_has(&text, &[option, value]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("a bound socket").port().to_string();
    let (code, text) = Launch::new().option("--sagemaker-port", &port).run().await;
    assert!(code.is_some_and(|code| code != 0 && code != 64), "{code:?}: {text}");
    assert_has(&text, &["--sagemaker-port", &port]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_cache_serves_one_server_at_a_time() {
    let store = FolderStore::new();
    let launch = store.launch();
    let first = launch.start().await;
    let (code, text) = launch.run().await;
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {text}");
    assert_has(&text, &[&launch.disk_cache().display().to_string()]);
    first.stop().await;
    launch.start().await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_cache_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let folder = file.path().join("below-a-file").display().to_string();
    let store = FolderStore::new();
    let (code, text) = store.launch().option("--disk-cache", &folder).run().await;
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {text}");
    assert_has(&text, &[&folder]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_option_has_a_variable() {
    let store = FolderStore::new();
    store.put("echo.tar.gz", &echo());
    let other = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::new()
        .variable("PANOPLY_MODEL_STORE", &store.folder().display().to_string())
        .variable("PANOPLY_MAX_REQUEST_SIZE", "200B")
        // An option wins over its variable.
        .variable("PANOPLY_DISK_CACHE", &other.path().join("unused").display().to_string());
    let server = launch.start().await;
    ask_echo(&server, "echo.tar.gz", &[1.0]).await.ok();
    let large = ask_echo(&server, "echo.tar.gz", &[1.25; 100]).await;
    assert_eq!(large.status, 413, "{large:?}");
    assert_has(&large.error(), &["200", "--max-request-size"]);
    assert!(!other.path().join("unused").exists());
    server.stop().await;

    let help = Command::new(e2e::panoply()).args(["serve", "--help"]).output().expect("the binary starts");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let options: Vec<_> = help.split_whitespace().filter_map(|word| word.strip_prefix("--")).collect();
    let named = |option: &&&str| help.contains(&format!("PANOPLY_{}=", option.to_uppercase().replace('-', "_")));
    let without: Vec<_> = options.iter().filter(|option| !named(option)).collect();
    assert!(options.len() > 25, "{help}");
    assert_eq!(without, [&"help"], "{help}");
}

//! Loading and unloading by name, with Triton's own clients.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use e2e::{Config, FolderStore, Launch, Server, Store, echo, fp32, infer, python, until};
use tempfile::TempDir;
use test_util::archive::ArchiveBuilder;

use crate::assert_has;

/// Runs a scenario of `model_control.py` with the client of one protocol.
async fn run(server: &Server, protocol: &str, scenario: &str, folder: &str) {
    let address = if protocol == "http" { server.address() } else { server.grpc_address() };
    let output = python("model_control.py", &[protocol, &address, scenario, folder]).await;
    assert_eq!(output.trim_end().lines().last(), Some("all right"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn target_models_are_loaded_and_unloaded_by_name() {
    for protocol in ["http", "grpc"] {
        let store = FolderStore::new();
        store.put("echo.tar.gz", &echo());
        store.put("team/echo.tar.gz", &echo());
        let typo = Config::new("m", "identity").line("max_batchsize: 1");
        store.put("broken.tar.gz", &ArchiveBuilder::new().file("config.pbtxt", typo.text()).gzip());
        let server = store.launch().start().await;
        run(&server, protocol, "targets", "-").await;
        server.stop().await;
    }
}

fn write(repository: &Path, name: &str, config: &Config) {
    fs::create_dir_all(repository.join(name).join("1")).expect("a folder");
    // Renamed into place, so that nobody reads half of it.
    let new = repository.join(format!(".{name}"));
    fs::write(&new, config.text()).expect("a file");
    fs::rename(&new, repository.join(name).join("config.pbtxt")).expect("renamed");
}

/// An `identity` model of one output.
fn identity(name: &str, output: &str) -> Config {
    Config::new(name, "identity").input("X", "FP32", "-1").output(output, "FP32", "-1")
}

/// `echo` and `other`, which answer under `Y`, and the ensemble `whole` of `echo`, which answers under `Z`.
fn repository() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    write(folder.path(), "echo", &identity("echo", "Y"));
    write(folder.path(), "other", &identity("other", "Y"));
    let whole = Config::ensemble("whole").input("X", "FP32", "-1").output("Z", "FP32", "-1");
    write(folder.path(), "whole", &whole.step("echo", &[("X", "X")], &[("Y", "Z")]));
    folder
}

fn launch(repository: &TempDir, mode: &str) -> Launch {
    Launch::new()
        .flag(&format!("--model-repository={}", repository.path().display()))
        .option("--model-control-mode", mode)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_decide_in_mode_explicit() {
    for protocol in ["http", "grpc"] {
        let repository = repository();
        let server = launch(&repository, "explicit").start().await;
        run(&server, protocol, "explicit", &repository.path().display().to_string()).await;
        let metrics = server.metrics().await;
        assert!(metrics.has("nv_model_load_duration_secs", &[("model", "echo"), ("version", "1")]));
        assert!(metrics.sum("panoply_model_load_failures_total", &[("reason", "invalid_argument")]) >= 1.0);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_are_named_are_loaded_at_start() {
    let repository = repository();
    let server = launch(&repository, "explicit").flag("--load-model=whole").start().await;
    assert_eq!(server.get("/v2/models/whole/ready").await.status, 200);
    assert_eq!(server.get("/v2/models/other/ready").await.status, 400);
    server.stop().await;
    let (code, log) = launch(&repository, "explicit").flag("--load-model=nope").run().await;
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {log}");
    assert_has(&log, &["failed to load 'nope', failed to poll from model repository"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_on_without_what_cannot_be_loaded_when_told_to() {
    let repository = repository();
    write(repository.path(), "broken", &Config::new("broken", "identity").line("max_batchsize: 1"));
    let (code, log) = launch(&repository, "none").run().await;
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {log}");
    assert_has(&log, &["broken/config.pbtxt:", "max_batchsize"]);
    let launch = launch(&repository, "none").option("--exit-on-error", "false").option("--strict-readiness", "false");
    let server = launch.start().await;
    assert_eq!(server.get("/v2/models/whole/ready").await.status, 200);
    let index = server.http().post(&server.url("/v2/repository/index"), &serde_json::json!({})).await.ok().json();
    let broken =
        index.as_array().expect("a list").iter().find(|line| line["name"] == "broken").expect("listed").clone();
    assert_eq!(broken["state"], "UNAVAILABLE");
    assert_has(&broken.to_string(), &["max_batchsize"]);
    server.stop().await;
}

/// How often a model has been loaded.
fn loads(server: &Server, name: &str) -> usize {
    server.log_lines_with(&[r#""message":"loaded""#, &format!("\"{name}\"")])
}

/// How long a look after a change may take in these tests.
const POLL_SECS: &str = "1";

#[tokio::test(flavor = "multi_thread")]
async fn files_decide_in_mode_poll_and_no_request_fails_meanwhile() {
    let repository = repository();
    let server = launch(&repository, "poll").option("--repository-poll-secs", POLL_SECS).start().await;
    for protocol in ["http", "grpc"] {
        run(&server, protocol, "refused", "-").await;
    }
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = |name: &str| {
        let (url, http) = (server.url(&format!("/v2/models/{name}/infer")), e2e::Http::new());
        let (stop, answered) = (stop.clone(), answered.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = http.post(&url, &infer(&[fp32("X", &[1.5])])).await;
                assert_eq!(answer.status, 200, "while models are loaded anew: {answer:?}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let clients = ["echo", "whole", "other"].map(client);
    let output = async |name: &str| {
        let metadata = server.get(&format!("/v2/models/{name}")).await.json();
        metadata["outputs"][0]["name"].as_str().map(str::to_owned)
    };
    // A change of `other` alone, and of what the ensemble is made of.
    for round in 0..3 {
        let name = format!("Y{round}");
        write(repository.path(), "other", &identity("other", &name));
        until("the new other", async || (output("other").await == Some(name.clone())).then_some(())).await;
        let loads = loads(&server, "whole");
        write(repository.path(), "echo", &identity("echo", "Y").parameter("round", &round.to_string()));
        until("whole, loaded with its member", async || (self::loads(&server, "whole") > loads).then_some(())).await;
    }
    // What fails leaves the old one where it is, and says why.
    write(
        repository.path(),
        "other",
        &Config::new("other", "nonesuch").input("X", "FP32", "-1").output("Y", "FP32", "-1"),
    );
    until("the failure in the index", async || {
        let index = server.http().post(&server.url("/v2/repository/index"), &serde_json::json!({})).await.ok().json();
        let line = index.as_array()?.iter().find(|line| line["name"] == "other")?.clone();
        (line["state"] == "READY" && line["reason"].as_str()?.contains("nonesuch")).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no client saw a failure");
    }
    assert!(answered.load(Ordering::Relaxed) > 100, "the clients were busy");
    // Models come and go; a change that only touches a file's time counts.
    write(repository.path(), "new", &identity("new", "NEW"));
    until("the model that came", async || (server.get("/v2/models/new/ready").await.status == 200).then_some(())).await;
    fs::remove_dir_all(repository.path().join("echo")).expect("removed");
    until("the end of whole", async || (server.get("/v2/models/whole/ready").await.status == 400).then_some(())).await;
    let loads = loads(&server, "new");
    let file = fs::File::options().write(true).open(repository.path().join("new/config.pbtxt")).expect("there");
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).expect("set");
    until("another load", async || (self::loads(&server, "new") > loads).then_some(())).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_up_is_in_no_statistics_and_its_failure_is_the_loads() {
    let repository = TempDir::new().expect("a folder");
    let sample = |file: &str| {
        let input =
            format!("inputs {{ key: \"X\" value {{ data_type: TYPE_FP32 dims: 2 input_data_file: \"{file}\" }} }}");
        identity("warm", "Y").line(&format!("model_warmup {{ name: \"two numbers\" count: 5 {input} }}"))
    };
    write(repository.path(), "warm", &sample("x.bin"));
    fs::create_dir(repository.path().join("warm/warmup")).expect("a folder");
    fs::write(repository.path().join("warm/warmup/x.bin"), [0; 8]).expect("a file");
    let server = launch(&repository, "explicit").flag("--load-model=*").start().await;
    let answer = server.http().post(&server.url("/v2/models/warm/infer"), &infer(&[fp32("X", &[1.5])])).await.ok();
    assert_eq!(answer.numbers("Y"), [1.5]);
    assert_eq!(server.metrics().await.sum("nv_inference_count", &[("model", "warm")]), 1.0);
    fs::write(repository.path().join("warm/warmup/x.bin"), [0; 4]).expect("a file");
    let failed = server.http().post(&server.url("/v2/repository/models/warm/load"), &serde_json::json!({})).await;
    assert_eq!(failed.status, 400, "{failed:?}");
    assert_has(&failed.error(), &["load failed for model 'warm': model_warmup sample 'two numbers'", "x.bin"]);
    let ready = server.get("/v2/models/warm/ready").await;
    assert_eq!(ready.status, 200, "the old one serves");
    server.stop().await;
}

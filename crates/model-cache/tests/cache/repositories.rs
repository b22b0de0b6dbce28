//! Models of unpacked repositories in every model control mode: starts, loads and unloads by name, changes of files.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use inference::{Error, ErrorKind, IndexEntry, LoadOverrides, ModelControl, ModelKey};
use model_cache::{InitialModels, ModelCacheConfig, ModelControlMode, RepositoryConfig};
use tempfile::TempDir;

use crate::harness::{Harness, mark_of, model_config};
use crate::room::eventually;

/// A repository, and a cache that serves it.
pub(crate) struct Repository {
    folder: TempDir,
    pub(crate) harness: Harness,
}

const POLL: Duration = Duration::from_millis(20);

fn explicit(names: &[&str]) -> ModelControlMode {
    ModelControlMode::Explicit(InitialModels::Named(names.iter().map(|name| (*name).to_owned()).collect()))
}

fn write(folder: &Path, model: &str, config: &str) {
    let weights = folder.join(model).join("1/model");
    if !weights.exists() {
        fs::create_dir_all(folder.join(model).join("1")).expect("writable");
        fs::write(weights, "weights").expect("writable");
    }
    // Written aside and renamed, so that no look sees half of it.
    let new = folder.join(format!(".{model}"));
    fs::write(&new, config).expect("writable");
    fs::rename(&new, folder.join(model).join("config.pbtxt")).expect("renamed");
}

pub(crate) fn ensemble(member: &str) -> String {
    format!(
        r#"platform: "ensemble" input [{{ name: "x" data_type: TYPE_UINT8 dims: [1] }}]
        output [{{ name: "mark" data_type: TYPE_UINT64 dims: [1] }}]
        ensemble_scheduling {{ step [{{ model_name: "{member}" model_version: -1
            input_map {{ key: "x" value: "x" }} output_map {{ key: "mark" value: "mark" }} }}] }}"#
    )
}

impl Repository {
    pub(crate) fn new(control: ModelControlMode, models: &[(&str, &str)]) -> Self {
        Self::with(control, models, |_| {})
    }

    pub(crate) fn with(
        control: ModelControlMode,
        models: &[(&str, &str)],
        change: impl FnOnce(&mut ModelCacheConfig),
    ) -> Self {
        let folder = TempDir::new().expect("temporary");
        models.iter().for_each(|(name, config)| write(folder.path(), name, config));
        let folders = vec![folder.path().to_owned()];
        let harness = Harness::new(1000, |config| {
            config.repositories = RepositoryConfig { folders, control, strict_readiness: true };
            change(config);
        });
        Repository { folder, harness }
    }

    pub(crate) async fn start(&self) -> Result<(), Error> {
        let loaded = self.harness.cache.load_repositories().await;
        self.harness.cache.accept();
        tokio::spawn(self.harness.cache.poll_repositories());
        loaded
    }

    pub(crate) fn put(&self, name: &str, config: &str) {
        write(self.folder.path(), name, config);
    }

    pub(crate) async fn mark(&self, name: &str) -> Result<u64, Error> {
        mark_of(&self.harness.cache, name).await
    }

    async fn load(&self, name: &str) -> Result<(), Error> {
        self.harness.cache.load(&ModelKey::of_model(name), LoadOverrides::default()).await
    }

    async fn unload(&self, name: &str, dependents: bool) {
        self.harness.cache.unload(&ModelKey::of_model(name), dependents).await.expect("unloads");
    }

    /// The index, a line a version.
    pub(crate) async fn index(&self) -> Vec<String> {
        let shown = |line: IndexEntry| {
            let version = line.version.map_or("-".to_owned(), |version| version.to_string());
            format!("{} {version} {} {}", line.name, line.state.name(), line.reason).trim_end().to_owned()
        };
        self.harness.cache.index().await.into_iter().map(shown).collect()
    }

    pub(crate) async fn shows(&self, line: &str) {
        eventually(line, async || self.index().await.iter().any(|shown| shown.starts_with(line))).await;
    }
}

pub(crate) fn marked(mark: &str) -> String {
    model_config(&[("mark", mark)])
}

fn bad() -> String {
    model_config(&[("fault", "load_error")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_control_everything_is_loaded_at_start_and_nothing_later() {
    let (good, typo, broken) = (marked("1"), "max_batchsize: 1", ensemble("typo"));
    let models = [("good", good.as_str()), ("typo", typo), ("whole", &ensemble("good")), ("broken", &broken)];
    let repository = Repository::new(ModelControlMode::None, &models);
    let error = repository.start().await.expect_err("one has a typo");
    assert!(error.message().contains("typo/config.pbtxt:1:1"), "{error}");
    assert!(error.message().contains("ensemble 'broken' depends on 'typo' which has no loaded version"), "{error}");
    assert!(!repository.harness.cache.is_server_ready(), "not every model serves");
    for name in ["good", "whole"] {
        assert_eq!(repository.mark(name).await.expect("its neighbours' faults are theirs"), 1);
    }
    let error = repository.mark("typo").await.expect_err("it is not loaded");
    assert_eq!(error.kind(), ErrorKind::NotReady);
    assert_eq!(error.message(), "Request for unknown model: 'typo' has no available versions");
    let index = repository.index().await;
    assert_eq!([&index[1], &index[3]], ["good 1 READY", "whole 1 READY"], "{index:?}");
    assert!(index[0].starts_with("broken 1 UNAVAILABLE ensemble 'broken' depends on 'typo'"), "{index:?}");
    assert!(index[2].starts_with("typo - UNAVAILABLE bad model configuration"), "{index:?}");
    let error = repository.load("good").await.expect_err("nobody loads by name");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().starts_with("explicit model load / unload is not allowed"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_load_and_unload_and_ensembles_follow() {
    let member = marked("1");
    let models = [
        ("a", member.as_str()),
        ("b", &marked("2")),
        ("outer", &ensemble("a")),
        ("twice", &ensemble("outer")),
        ("bad", &bad()),
    ];
    let repository = Repository::new(explicit(&["b"]), &models);
    repository.start().await.expect("b can be loaded");
    assert_eq!(
        repository.index().await,
        ["a - UNAVAILABLE", "b 1 READY", "bad - UNAVAILABLE", "outer - UNAVAILABLE", "twice - UNAVAILABLE"]
    );
    repository.load("twice").await.expect("with all that it is made of");
    assert_eq!(repository.mark("twice").await.expect("serves"), 1);
    assert!(repository.index().await.contains(&"a 1 READY".to_owned()));
    let loads = repository.harness.loads();
    repository.load("twice").await.expect("is loaded");
    repository.load("a").await.expect("is loaded");
    assert_eq!(repository.harness.loads(), loads, "nothing has changed");

    repository.unload("a", false).await;
    for gone in ["a", "outer", "twice"] {
        assert!(!repository.harness.cache.is_model_ready(&ModelKey::of_model(gone)), "{gone}");
        assert!(repository.mark(gone).await.is_err(), "{gone}");
    }
    repository.shows("a 1 UNAVAILABLE unloaded").await;
    repository.shows("outer 1 UNAVAILABLE ensemble 'outer' depends on 'a' which has no loaded version").await;
    repository.load("a").await.expect("loads");
    assert_eq!(repository.mark("twice").await.expect("came back with its member"), 1);

    repository.unload("twice", true).await;
    repository.shows("outer 1 UNAVAILABLE unloaded").await;
    assert_eq!(repository.mark("a").await.expect("it was asked for by name"), 1);
    repository.unload("a", false).await;
    repository.load("twice").await.expect("loads");
    repository.unload("twice", true).await;
    repository.shows("a 1 UNAVAILABLE unloaded").await;

    let error = repository.load("bad").await.expect_err("its weights are bad");
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::InvalidArgument, "load failed for model 'bad': the weights are bad")
    );
    repository.shows("bad 1 UNAVAILABLE load failed for model 'bad': the weights are bad").await;
    let error = repository.load("nope").await.expect_err("unknown");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    repository.put("new", &marked("9"));
    repository.load("new").await.expect("it has come since the start");
    assert_eq!(repository.mark("new").await.expect("serves"), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overrides_hold_until_the_next_load_or_unload() {
    let repository = Repository::new(explicit(&[]), &[("a", &marked("1")), ("outer", &ensemble("a"))]);
    repository.start().await.expect("nothing to load");
    repository.load("outer").await.expect("loads");
    let config = r#"{"backend": "scripted", "input": [{"name": "x", "data_type": "TYPE_UINT8", "dims": [1]}],
        "output": [{"name": "mark", "data_type": "TYPE_UINT64", "dims": [1]}],
        "parameters": {"mark": {"string_value": "7"}}}"#;
    let cache = &repository.harness.cache;
    let given = LoadOverrides { config: Some(config.to_owned()), ..LoadOverrides::default() };
    cache.load(&ModelKey::of_model("a"), given).await.expect("loads");
    assert_eq!(repository.mark("a").await.expect("as given"), 7);
    assert_eq!(repository.mark("outer").await.expect("it was reloaded with its member"), 7);
    let files = [("2/model".to_owned(), "weights".into())].into();
    let given = LoadOverrides { config: Some(config.to_owned()), files, prefetch: false };
    cache.load(&ModelKey::of_model("sent"), given).await.expect("it needs no repository");
    assert!(repository.index().await.contains(&"sent 2 READY".to_owned()));
    repository.unload("sent", false).await;
    eventually("the end of what is nowhere", async || !repository.index().await.join(" ").contains("sent")).await;
    repository.load("a").await.expect("loads");
    assert_eq!(repository.mark("outer").await.expect("as the repository has it"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_follows_the_files_and_no_request_fails() {
    let models = [("a", marked("1")), ("other", marked("5")), ("outer", ensemble("a"))];
    let repository = Arc::new(Repository::new(
        ModelControlMode::Poll(POLL),
        &models.each_ref().map(|(name, config)| (*name, config.as_str())),
    ));
    repository.start().await.expect("loads");
    let error = repository.load("a").await.expect_err("the files decide");
    assert!(
        error.message().starts_with("explicit model load / unload is not allowed if polling is enabled"),
        "{error}"
    );
    let stop = Arc::new(AtomicBool::new(false));
    let client = |name: &'static str| {
        let (repository, stop) = (repository.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                repository.mark(name).await.expect("no request fails while a model is loaded anew");
                tokio::task::yield_now().await;
            }
        })
    };
    let clients = ["a", "outer", "other"].map(client);
    for mark in 2..5 {
        repository.put("a", &marked(&mark.to_string()));
        eventually("the new a", async || repository.mark("a").await.ok() == Some(mark)).await;
        eventually("outer with it", async || repository.mark("outer").await.ok() == Some(mark)).await;
    }
    repository.put("a", &bad());
    repository.shows("a 1 READY load failed for model 'a': the weights are bad").await;
    assert_eq!(repository.mark("a").await.expect("the old one goes on"), 4);
    repository.put("a", &marked("6"));
    eventually("outer with the good a", async || repository.mark("outer").await.ok() == Some(6)).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no client failed");
    }
    let loads = repository.harness.loads();
    tokio::time::sleep(5 * POLL).await;
    assert_eq!(repository.harness.loads(), loads, "nothing changed, nothing is loaded");

    repository.put("new", &marked("8"));
    eventually("the model that came", async || repository.mark("new").await.ok() == Some(8)).await;
    fs::remove_dir_all(repository.folder.path().join("a")).expect("removed");
    eventually("the end of a", async || repository.mark("a").await.is_err()).await;
    eventually("the end of outer", async || repository.mark("outer").await.is_err()).await;
    assert_eq!(repository.mark("other").await.expect("untouched"), 5);
    let error = repository.mark("a").await.expect_err("gone");
    assert!(!error.message().contains("versions"), "it is not even known any more: {error}");
    repository.put("a", &marked("9"));
    eventually("outer, which came back", async || repository.mark("outer").await.ok() == Some(9)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_come_and_go_with_their_directories() {
    let config = format!("{} version_policy {{ latest {{ num_versions: 2 }} }}", marked("1"));
    let repository = Repository::new(ModelControlMode::Poll(POLL), &[("a", &config)]);
    repository.start().await.expect("loads");
    for version in ["2", "3"] {
        let staged = repository.folder.path().join(".staged");
        fs::create_dir(&staged).expect("made");
        fs::write(staged.join("model"), "weights").expect("written");
        fs::rename(&staged, repository.folder.path().join("a").join(version)).expect("renamed");
        repository.shows(&format!("a {version} READY")).await;
    }
    assert_eq!(repository.index().await, ["a 2 READY", "a 3 READY"]);
    fs::remove_dir_all(repository.folder.path().join("a/3")).expect("removed");
    repository.shows("a 1 READY").await;
    assert_eq!(repository.index().await, ["a 1 READY", "a 2 READY"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_version_serves_until_the_new_one_is_ready_and_is_then_given_up() {
    let sized = |mark: &str, gate: &str| {
        model_config(&[("mark", mark), ("estimate", "10"), ("actual", "10"), ("load_gate", gate)])
    };
    let repository = Repository::new(ModelControlMode::Poll(POLL), &[("a", &sized("1", "open"))]);
    repository.start().await.expect("loads");
    let gate = repository.harness.backend.gate("shut");
    repository.put("a", &sized("2", "shut"));
    repository.shows("a 1 READY").await;
    eventually("the second load", async || repository.harness.loads() == 2).await;
    assert_eq!(repository.mark("a").await.expect("the old one serves"), 1);
    gate.send(()).expect("the load waits at its gate");
    eventually("the new one", async || repository.mark("a").await.ok() == Some(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_in_two_repositories_is_an_error() {
    let second = TempDir::new().expect("temporary");
    write(second.path(), "a", &marked("2"));
    let first = TempDir::new().expect("temporary");
    write(first.path(), "a", &marked("1"));
    write(first.path(), "b", &marked("3"));
    let folders = vec![first.path().to_owned(), second.path().to_owned()];
    let harness = Harness::new(1000, |config| config.repositories = RepositoryConfig { folders, ..Default::default() });
    let error = harness.cache.load_repositories().await.expect_err("which one?");
    assert!(error.message().contains("model 'a' is in two repositories"), "{error}");
    assert_eq!(mark_of(&harness.cache, "b").await.expect("it is in one"), 3);
}

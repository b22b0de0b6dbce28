//! The SageMaker container contract on its own port.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::{
    Answer, Config, ENDLESS, Endless, Http, Launch, Server, binary_request, fp32, generated_model, infer, spin_request,
    until,
};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::assert_has;

/// What the platform would have unpacked below `/opt/ml/models`.
struct Models(TempDir);

impl Models {
    fn new() -> Self {
        Models(TempDir::new().expect("a temporary folder"))
    }

    fn path(&self, hash: &str) -> PathBuf {
        self.0.path().join(hash).join("model")
    }

    fn write(&self, hash: &str, file: &str, content: impl AsRef<[u8]>) {
        let file = self.path(hash).join(file);
        fs::create_dir_all(file.parent().expect("a file lies in a folder")).expect("a folder can be made");
        fs::write(file, content).expect("a file can be written");
    }

    fn echo(&self, hash: &str, parameter: Option<(&str, &str)>) {
        let config = Config::new("echo", "identity").input("X", "FP32", "-1").output("Y", "FP32", "-1");
        let config = parameter.into_iter().fold(config, |config, (key, value)| config.parameter(key, value));
        self.write(hash, "config.pbtxt", config.text());
    }

    async fn serve(&self) -> Server {
        let launch = Launch::new().option("--sagemaker-model-root", &self.0.path().display().to_string());
        launch.option("--model-memory", "64MiB").start().await
    }
}

async fn load(server: &Server, name: &str, path: &Path) -> Answer {
    let body = json!({ "model_name": name, "url": path.display().to_string() });
    server.http().post(&server.container_url("/models"), &body).await
}

async fn invoke(server: &Server, name: &str) -> Answer {
    server.http().post(&server.container_url(&format!("/models/{name}/invoke")), &infer(&[fp32("X", &[1.25])])).await
}

async fn listed(server: &Server) -> Value {
    server.http().get(&server.container_url("/models")).await.ok().json()["models"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go() {
    let models = Models::new();
    models.echo("h1", None);
    models.echo("h2", None);
    let server = models.serve().await;
    assert_eq!(server.http().get(&server.container_url("/ping")).await.status, 200);
    assert_eq!(listed(&server).await, json!([]));
    assert_eq!(invoke(&server, "abc123").await.status, 404);

    load(&server, "abc123", &models.path("h1")).await.ok();
    let again = load(&server, "abc123", &models.path("h1")).await;
    assert_eq!(again.status, 409, "{again:?}");
    load(&server, "def456", &models.path("h2")).await.ok();
    let answer = invoke(&server, "abc123").await.ok();
    assert_eq!((answer.numbers("Y"), &answer.json()["model_name"]), (vec![1.25], &json!("abc123")));
    let shown = |name: &str, hash: &str| {
        let url = models.path(hash);
        json!({ "modelName": name, "modelUrl": url.parent().expect("a folder").display().to_string() })
    };
    assert_eq!(listed(&server).await, json!([shown("abc123", "h1"), shown("def456", "h2")]));
    let first = server.http().get(&server.container_url("/models?limit=1")).await.ok().json();
    assert_eq!(first["models"], json!([shown("abc123", "h1")]));
    let next = format!("/models?limit=1&next_page_token={}", first["next_page_token"].as_str().expect("a token"));
    let second = server.http().get(&server.container_url(&next)).await.ok().json();
    assert_eq!(second, json!({ "models": [shown("def456", "h2")] }));
    let one = server.http().get(&server.container_url("/models/abc123")).await.ok().json();
    assert_eq!(one, shown("abc123", "h1"));

    // A registered model answers on the HTTP port too, and only by its name.
    let url = server.url("/v2/models/abc123/infer");
    assert_eq!(server.http().post(&url, &infer(&[fp32("X", &[3.0])])).await.ok().numbers("Y"), [3.0]);
    server.http().delete(&server.container_url("/models/abc123")).await.ok();
    for answer in [invoke(&server, "abc123").await, server.http().delete(&server.container_url("/models/abc123")).await]
    {
        assert_eq!(answer.status, 404, "{answer:?}");
        assert_has(&answer.error(), &["abc123"]);
    }
    assert_eq!(server.http().get(&server.container_url("/models/abc123")).await.status, 404);
    load(&server, "abc123", &models.path("h2")).await.ok();
    invoke(&server, "abc123").await.ok();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_has_the_contracts_status() {
    let models = Models::new();
    models.echo("good", None);
    models.echo("huge", Some(("memory_bytes", "999999999")));
    models.write("broken", "config.pbtxt", "nonsense: 1");
    models.write("unreadable", "m/1/model.onnx", "this is no model");
    let server = models.serve().await;
    let inside = |hash: &str| models.path(hash).display().to_string();
    let cases = [
        (json!({ "model_name": "m", "url": inside("nothing") }), 404, "nothing"),
        (json!({ "model_name": "m", "url": "/etc" }), 400, "/etc"),
        (json!({ "model_name": "m", "url": format!("{}/../..", inside("good")) }), 400, ".."),
        (json!({ "url": inside("good") }), 400, "model_name"),
        (json!({ "model_name": "m" }), 400, "url"),
        (json!([1]), 400, "model_name"),
        (json!({ "model_name": "m", "url": inside("huge") }), 507, "999999999"),
        (json!({ "model_name": "m", "url": inside("broken") }), 500, "config.pbtxt:1:1"),
        (json!({ "model_name": "m", "url": inside("unreadable") }), 500, "m"),
    ];
    for (body, status, part) in cases {
        let answer = server.http().post(&server.container_url("/models"), &body).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert_has(&answer.error(), &[part]);
        assert_eq!(listed(&server).await, json!([]), "{body}: what failed is not listed");
    }
    load(&server, "m", &models.path("good")).await.ok();
    invoke(&server, "m").await.ok();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_deleted_while_in_use_finishes_what_it_does() {
    let models = Models::new();
    models.write("spin", "1/model.onnx", generated_model("spin"));
    models.echo("echo", None);
    let server = Arc::new(models.serve().await);
    load(&server, "spin", &models.path("spin")).await.ok();
    load(&server, "echo", &models.path("echo")).await.ok();
    let spin_url = server.container_url("/models/spin/invoke");
    server.http().post(&spin_url, &spin_request(1)).await.ok();
    let busy = tokio::spawn({
        let url = spin_url.clone();
        async move { Http::new().post(&url, &spin_request(3_000_000)).await }
    });
    until("the model is busy", async || {
        (server.metrics().await.sum("panoply_requests_in_flight", &[]) == 1.0).then_some(())
    })
    .await;
    let delete = tokio::spawn({
        let url = server.container_url("/models/spin");
        async move { Http::new().delete(&url).await }
    });
    until("the model is being unloaded", async || {
        let index = server.http().send(Method::POST, &server.url("/v2/repository/index"), &[], "").await.ok();
        index.text().contains("UNLOADING").then_some(())
    })
    .await;
    // It takes no new requests, and makes nobody else wait.
    let late = server.http().post(&spin_url, &spin_request(1)).await;
    assert!([404, 503].contains(&late.status), "{late:?}");
    invoke(&server, "echo").await.ok();
    assert_eq!(server.http().get(&server.container_url("/ping")).await.status, 200);
    assert!(!delete.is_finished() && !busy.is_finished(), "the model was to be busy longer");
    assert_eq!(busy.await.expect("the request runs").ok().numbers("done"), [3_000_000.0]);
    delete.await.expect("the request runs").ok();
    let bytes = server.metrics().await.sum("panoply_resident_archives", &[]);
    assert_eq!(bytes, 1.0, "the answer comes when the memory is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_answered_whatever_else_is_going_on() {
    let models = Models::new();
    let config = Config::new("spin", "onnxruntime").input("rounds", "INT64", "1").output("done", "INT64", "1");
    models.write("spin", "config.pbtxt", config.line("instance_group [ { count: 16 } ]").text());
    models.write("spin", "1/model.onnx", generated_model("spin"));
    let server = models.serve().await;
    load(&server, "spin", &models.path("spin")).await.ok();
    let url = server.container_url("/models/spin/invoke");
    let busy: Vec<_> = (0..32).map(|_| Endless::post(&url, &spin_request(ENDLESS))).collect();
    until("the model is busy", async || {
        (server.metrics().await.sum("panoply_requests_in_flight", &[]) == 32.0).then_some(())
    })
    .await;
    let start = Instant::now();
    assert_eq!(server.http().get(&server.container_url("/ping")).await.status, 200);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(!busy.iter().any(Endless::is_over), "they never end by themselves");
    drop(busy);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invocations_and_binary_bodies_in_both_directions() {
    const BINARY: &str = "application/vnd.sagemaker-triton.binary+json";
    let models = Models::new();
    models.echo("only", None);
    let server = models.serve().await;
    load(&server, "only", &models.path("only")).await.ok();
    let url = server.container_url("/invocations");
    let answer = server.http().post(&url, &infer(&[fp32("X", &[9.0])])).await.ok();
    assert_eq!(answer.numbers("Y"), [9.0], "the only model needs no name");

    let data: Vec<u8> = [1.5f32, -2.5].iter().flat_map(|number| number.to_le_bytes()).collect();
    let input = json!({ "name": "X", "datatype": "FP32", "shape": [2], "parameters": { "binary_data_size": 8 } });
    let output = json!({ "name": "Y", "parameters": { "binary_data": true } });
    let (body, length) = binary_request(&json!({ "inputs": [input], "outputs": [output] }), &[&data]);
    let content_type = format!("{BINARY};json-header-size={length}");
    for path in ["/invocations", "/models/only/invoke"] {
        let headers = [("content-type", content_type.as_str()), ("accept", BINARY)];
        let answer = server.http().send(Method::POST, &server.container_url(path), &headers, body.clone()).await.ok();
        let answered = answer.header("content-type").expect("a type").to_owned();
        let length = answered.strip_prefix(&format!("{BINARY};json-header-size=")).expect("a binary answer");
        let (json, tensor) = answer.body.split_at(length.parse().expect("a number"));
        assert_eq!(tensor, data, "{path}");
        let json: Value = serde_json::from_slice(json).expect("JSON");
        assert_eq!(json["outputs"][0]["shape"], json!([2]), "{path}");
    }
    server.stop().await;
}

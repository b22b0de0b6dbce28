//! Traces: spans of whole requests as a real collector gets them, and the settings that decide which are traced.

use e2e::{
    CollectedSpan, Collector, Config, FolderStore, Launch, Server, Store, echo, fp32, infer, prepared_model, python,
};
use http::Method;
use serde_json::json;
use test_util::archive::ArchiveBuilder;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// An ensemble of two steps, one after the other.
fn pipeline() -> Vec<u8> {
    let rows = "3";
    let config = Config::ensemble("pipeline").line("max_batch_size: 4").input("A", "FP32", rows);
    let config = config.input("B", "FP32", rows).output("OUT", "FP32", rows);
    let config = config.step("first", &[("a", "A"), ("b", "B")], &[("sum", "SUM"), ("difference", "DIFFERENCE")]).step(
        "second",
        &[("a", "SUM"), ("b", "DIFFERENCE")],
        &[("sum", "OUT")],
    );
    let onnx = prepared_model("add_sub");
    let archive = ArchiveBuilder::new().file("pipeline/config.pbtxt", config.text()).directory("pipeline/1");
    archive.file("first/1/model.onnx", onnx.clone()).file("second/1/model.onnx", onnx).gzip()
}

fn traced(launch: Launch, collector: &Collector, settings: &[&str]) -> Launch {
    let url = format!("opentelemetry,url={}", collector.url());
    let sending = [url.as_str(), "opentelemetry,bsp_schedule_delay=50"];
    sending.iter().chain(settings).fold(launch, |launch, setting| launch.flag(&format!("--trace-config={setting}")))
}

fn named<'a>(spans: &'a [CollectedSpan], name: &str) -> &'a CollectedSpan {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name} in {spans:#?}"))
}

/// Each pair is a span and the one that it lies within, in the tree and in time.
#[track_caller]
fn assert_within(spans: &[CollectedSpan], pairs: &[(&str, &str)]) {
    for (inner, outer) in pairs {
        let (inner, outer) = (named(spans, inner), named(spans, outer));
        assert_eq!(inner.parent, outer.id, "{inner:?} in {outer:?}");
        assert!(
            outer.start <= inner.start && inner.start <= inner.end && inner.end <= outer.end,
            "{inner:?} in {outer:?}"
        );
    }
}

async fn ask(server: &Server, traceparent: &str) {
    let row = |name: &str, data: [f32; 3]| json!({ "name": name, "datatype": "FP32", "shape": [1, 3], "data": data });
    let body = infer(&[row("A", [1.0, 2.0, 3.0]), row("B", [4.0, 5.0, 6.0])]).to_string();
    let url = server.url("/v2/models/pipeline.tar.gz/infer");
    let headers = [("traceparent", traceparent), ("tracestate", "vendor=1")];
    let answer = server.http().send(Method::POST, &url, &headers, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_ensemble_is_one_tree_below_the_callers_span() {
    let (collector, store) = (Collector::start().await, FolderStore::new());
    store.put("pipeline.tar.gz", &pipeline());
    let settings = ["mode=opentelemetry", "level=TIMESTAMPS", "level=TENSORS", "opentelemetry,resource=team=a"];
    let server = traced(store.launch(), &collector, &settings).start().await;
    ask(&server, &format!("00-{TRACE}-{CALLER}-01")).await;
    let spans = collector.trace_with(TRACE, "InferRequest").await;

    let root = named(&spans, "InferRequest");
    assert_eq!(root.parent, CALLER);
    let told = |name: &str| root.attributes.get(name).map(String::as_str);
    assert_eq!(told("triton.model_name"), Some("Str(pipeline.tar.gz)"));
    assert_eq!((told("panoply.cache"), told("panoply.outcome")), (Some("Str(store)"), Some("Str(success)")));
    assert_eq!(told("triton.inputs"), Some("Str(A FP32 [1,3]; B FP32 [1,3])"));
    let within = [
        ("admission", "InferRequest"),
        ("archive", "InferRequest"),
        ("store.head", "archive"),
        ("fetch", "archive"),
        ("download", "fetch"),
        ("unpack", "fetch"),
        ("load", "archive"),
        ("pipeline", "InferRequest"),
        ("first", "pipeline"),
        ("second", "pipeline"),
        ("response", "InferRequest"),
    ];
    assert_within(&spans, &within);
    for step in ["first", "second"] {
        let inside = |name: &str| spans.iter().any(|span| span.name == name && span.parent == named(&spans, step).id);
        assert!(inside("queue") && inside("compute"), "{step}: {spans:#?}");
    }
    let infers = spans.iter().filter(|span| span.name == "compute.infer").count();
    assert_eq!(infers, 2, "{spans:#?}");
    assert!(named(&spans, "first").end <= named(&spans, "second").start, "one after the other");
    assert!(collector.has_resource("team: Str(a)") && collector.has_resource("service.name: Str(panoply)"));

    // A caller that is not traced itself is not traced here.
    let untraced = "00000000000000000000000000000abc";
    ask(&server, &format!("00-{untraced}-{CALLER}-00")).await;
    let warm = "00000000000000000000000000000def";
    ask(&server, &format!("00-{warm}-{CALLER}-01")).await;
    let spans = collector.trace_with(warm, "InferRequest").await;
    assert!(!spans.iter().any(|span| span.name == "archive"), "it was in memory: {spans:#?}");
    server.stop().await;
    assert!(!collector.spans().iter().any(|span| span.trace == untraced));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_are_sent_at_the_end_and_a_dead_collector_is_no_harm() {
    let (collector, store) = (Collector::start().await, FolderStore::new());
    store.put("echo.tar.gz", &echo());
    let slow = ["level=TIMESTAMPS", "rate=1", "opentelemetry,bsp_schedule_delay=600000"];
    let server = traced(store.launch(), &collector, &slow).start().await;
    server.invoke("echo.tar.gz", &infer(&[fp32("X", &[1.0])])).await.ok();
    server.stop().await;
    e2e::until("the last span arrives", async || roots(&collector).eq(&1).then_some(())).await;

    let nowhere = [
        "--trace-config=level=TIMESTAMPS",
        "--trace-config=rate=1",
        "--trace-config=opentelemetry,bsp_schedule_delay=1",
    ];
    let launch = nowhere.iter().fold(store.launch(), |launch, flag| launch.flag(flag));
    let launch = launch.flag("--trace-config=opentelemetry,url=127.0.0.1:9/v1/traces");
    let server = launch.start().await;
    for _ in 0..5 {
        server.invoke("echo.tar.gz", &infer(&[fp32("X", &[1.0])])).await.ok();
    }
    e2e::until("lost spans are counted", async || {
        let lost = [("reason", "export_failed")];
        (server.metrics().await.sum("panoply_trace_spans_dropped_total", &lost) > 0.0).then_some(())
    })
    .await;
    server.stop().await;
}

/// How many requests were traced.
fn roots(collector: &Collector) -> usize {
    collector.spans().iter().filter(|span| span.name == "InferRequest").count()
}

async fn settings(protocol: &str, address: fn(&Server) -> String) {
    let (collector, store) = (Collector::start().await, FolderStore::new());
    store.put("echo.tar.gz", &echo());
    let server = traced(store.launch(), &collector, &[]).start().await;
    let output = python("trace_settings_client.py", &[protocol, &address(&server)]).await;
    assert_eq!(output.trim_end().lines().last(), Some("all right"), "{output}");
    // Settings take effect at once: eight times the script asked under a rate of 2, which a count of 2 cut short.
    server.stop().await;
    e2e::until("the last span arrives", async || (roots(&collector) >= 2).then_some(())).await;
    assert_eq!(roots(&collector), 2, "{:#?}", collector.spans());
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_sets_what_is_traced_over_http() {
    settings("http", Server::address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_sets_what_is_traced_over_grpc() {
    settings("grpc", Server::grpc_address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_configuration_is_told_at_start() {
    let launch = Launch::new().flag("--trace-config=mode=triton").flag("--trace-config=rate=0");
    let (code, errors) = launch.run().await;
    assert_eq!(code, Some(64), "{errors}");
    crate::assert_has(&errors, &["--trace-config mode=triton: ", "--trace-config rate=0: "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_reading_a_request_takes_is_in_its_trace() {
    let (collector, store) = (Collector::start().await, FolderStore::new());
    let server = traced(store.launch(), &collector, &["level=TIMESTAMPS"]).start().await;
    let raw = ("inference-header-content-length", "0");
    let target = ("x-amzn-sagemaker-target-model", "d.tar.gz");
    let cases: [(_, _, &[(&str, &str)], _); 4] = [
        ("a", "/v2/models/a.tar.gz/infer", &[raw], "\0\0\0\0"),
        ("b", "/v2/models/b.tar.gz/generate", &[], r#"{"X":[1]}"#),
        ("c", "/v2/models/c.tar.gz/generate_stream", &[], r#"{"X":[1]}"#),
        ("d", "/endpoints/e/invocations-response-stream", &[raw, target], "\0\0\0\0"),
    ];
    for (name, path, headers, body) in cases {
        store.put(&format!("{name}.tar.gz"), &echo());
        let trace = name.repeat(32);
        let traceparent = format!("00-{trace}-{CALLER}-01");
        let headers = [headers, &[("traceparent", traceparent.as_str())]].concat();
        let answer = server.http().send(Method::POST, &server.url(path), &headers, body.to_owned()).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let spans = collector.trace_with(&trace, "InferRequest").await;
        let within =
            [("archive", "InferRequest"), ("load", "archive"), ("echo", "InferRequest"), ("response", "InferRequest")];
        assert_within(&spans, &within);
        assert_eq!(named(&spans, "InferRequest").attributes["panoply.cache"], "Str(store)", "{path}");
    }
    server.stop().await;
}

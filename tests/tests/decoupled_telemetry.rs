//! What can be seen of decoupled models: statistics by response, counters, spans, and `perf_analyzer`'s report.

use e2e::{Collector, Config, FolderStore, Launch, Server, Store};
use futures::stream;
use protocol::grpc_service::ModelStatisticsRequest;
use serde_json::Value;
use test_util::archive::ArchiveBuilder;
use tonic::Request;

use crate::decoupled::{Client, all, ask, connect, open, repeat};

/// How often the last model of a server's statistics had what, by place of the response.
async fn responses(server: &Server, path: &str) -> Vec<(String, [u64; 4])> {
    let answer = server.get(path).await.ok().json();
    let of = answer["model_stats"][0]["response_stats"].as_object().expect("an object").clone();
    let count = |of: &Value, what: &str| of[what]["count"].as_u64().expect("a count");
    let counts = |of: &Value| ["success", "fail", "empty_response", "cancel"].map(|what| count(of, what));
    of.iter().map(|(place, of)| (place.clone(), counts(of))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_tell_of_each_response_and_counters_of_each_request() {
    let store = FolderStore::new();
    store.put("repeat.tar.gz", &repeat());
    let server = store.launch().start().await;
    let mut client: Client = connect(&server).await;
    let mut wrong = ask("wrong", &[1, 2], 0);
    wrong.inputs[1].shape[0] = 1;
    wrong.raw_input_contents[1] = bytes::Bytes::from_static(&[0; 4]);
    for request in [ask("three", &[1, 2, 3], 2), ask("one", &[1], 2), ask("none", &[], 0)] {
        all(open(&mut client, stream::iter([request])).await).await;
    }
    let mut answers = open(&mut client, stream::iter([wrong])).await;
    assert_ne!(answers.message().await.expect("no status").expect("an answer").error_message, "");

    // The one that only says that no more will come is empty.
    let expected = [("0", [2, 1, 1, 0]), ("1", [1, 0, 1, 0]), ("2", [1, 0, 0, 0]), ("3", [0, 0, 1, 0])];
    let told = responses(&server, "/v2/models/repeat.tar.gz/stats").await;
    assert_eq!(told, expected.map(|(place, counts)| (place.to_owned(), counts)));
    let name = "repeat.tar.gz".to_owned();
    let over_grpc = client.model_statistics(ModelStatisticsRequest { name, version: String::new() }).await;
    let first = over_grpc.expect("statistics").into_inner().model_stats[0].response_stats["0"];
    assert!(first.success.expect("always there").ns >= 4_000_000, "{first:?}");
    assert_eq!(first.compute_infer.expect("always there").count, 4);

    let metrics = server.metrics().await;
    let count = |name: &str| metrics.sum(name, &[("model", "repeat.tar.gz")]);
    let counted = ["success", "failure"].map(|end| count(&format!("nv_inference_request_{end}")));
    assert_eq!(counted, [3.0, 1.0], "requests, not responses");
    assert_eq!([count("nv_inference_count"), count("nv_inference_exec_count")], [3.0, 4.0]);
    assert_eq!(count("nv_inference_pending_request_count"), 0.0);
    server.stop().await;
}

/// A decoupled step that answers n times, and one below it.
fn pipeline(line: &str) -> Vec<u8> {
    let numbers =
        |config: Config, input: &str, output: &str| config.input(input, "INT32", "1").output(output, "INT32", "1");
    let whole = numbers(Config::ensemble("pipeline").line(line), "N", "R");
    let whole = whole.step("square", &[("IN", "N")], &[("OUT", "MID")]).step("copy", &[("IN", "MID")], &[("OUT", "R")]);
    let square = Config::new("square", "square").line("model_transaction_policy { decoupled: true }");
    let models = [whole, numbers(square, "IN", "OUT"), numbers(Config::new("copy", "identity"), "IN", "OUT")];
    let archive = models.iter().fold(ArchiveBuilder::new(), |archive, model| {
        let name = model.name();
        archive.file(&format!("{name}/config.pbtxt"), model.text()).directory(&format!("{name}/1"))
    });
    archive.gzip()
}

fn ask_pipeline(count: i32) -> protocol::grpc_service::ModelInferRequest {
    let mut request = ask("n", &[count], 0);
    request.model_name = "pipeline.tar.gz".to_owned();
    request.inputs.truncate(1);
    request.raw_input_contents.truncate(1);
    request.inputs[0].name = "N".to_owned();
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decoupled_ensemble_is_one_tree_of_spans() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let (collector, store) = (Collector::start().await, FolderStore::new());
    store.put("pipeline.tar.gz", &pipeline(""));
    let traced = |launch: Launch, setting: &str| launch.flag(&format!("--trace-config={setting}"));
    let url = format!("opentelemetry,url={}", collector.url());
    let settings = [url.as_str(), "opentelemetry,bsp_schedule_delay=50", "level=TIMESTAMPS"];
    let server = settings.into_iter().fold(store.launch(), traced).start().await;
    let mut client = connect(&server).await;
    let mut request = Request::new(stream::iter([ask_pipeline(2)]));
    let caller = format!("00-{TRACE}-00f067aa0ba902b7-01");
    request.metadata_mut().insert("traceparent", caller.parse().expect("ASCII"));
    let answers = client.model_stream_infer(request).await.expect("a stream").into_inner();
    assert_eq!(all(answers).await.len(), 2);

    let spans = collector.trace_with(TRACE, "InferRequest").await;
    let ids =
        |name: &str| spans.iter().filter(|span| span.name == name).map(|span| span.id.clone()).collect::<Vec<_>>();
    let within = |name: &str, outer: &str| {
        let inner: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        assert!(inner.iter().all(|span| ids(outer).contains(&span.parent)), "{name} in {outer}: {spans:#?}");
        inner.len()
    };
    assert_eq!(within("pipeline", "InferRequest"), 1);
    assert_eq!(within("square", "pipeline"), 1);
    assert_eq!(within("copy", "pipeline"), 2, "once for each response");
    assert_eq!((ids("queue").len(), ids("compute").len()), (3, 3));
    let one = |name: &str| spans.iter().find(|span| span.name == name).expect("one");
    let (square, whole) = (one("square"), one("pipeline"));
    assert!(whole.start <= square.start && square.end <= whole.end, "{spans:#?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_with_a_decoupled_step_is_not_cached() {
    let store = FolderStore::new();
    store.put("pipeline.tar.gz", &pipeline("response_cache { enable: true }"));
    let server = store.launch().option("--response-cache-byte-size", "1MiB").start().await;
    let mut client = connect(&server).await;
    let mut answers = open(&mut client, stream::iter([ask_pipeline(1)])).await;
    let error = answers.message().await.expect("no status").expect("an answer").error_message;
    let parts = ["pipeline/config.pbtxt", "support model pipeline with 'decoupled' transaction policy", "'square'"];
    crate::assert_has(&error, &parts);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn perf_analyzer_measures_a_decoupled_model() {
    let store = FolderStore::new();
    store.put("repeat.tar.gz", &repeat());
    let server = store.launch().start().await;
    // Zeros, so that no response waits.
    let shapes = ["--shape", "IN:3", "--shape", "DELAY:3", "--input-data", "zero"];
    let options = [&["-i", "gRPC", "--streaming", "--async"][..], &shapes].concat();
    let report = crate::perf_analyzer::analyze("repeat.tar.gz", &server.grpc_address(), &options).await;
    crate::assert_has(&report, &["Successful request count: ", "Response Throughput: "]);
    let metrics = server.metrics().await;
    let labels = [("model", "repeat.tar.gz")];
    assert!(metrics.sum("nv_inference_request_success", &labels) >= 60.0);
    assert_eq!(metrics.sum("nv_inference_request_failure", &labels), 0.0);
    let told = responses(&server, "/v2/models/repeat.tar.gz/stats").await;
    assert_eq!(told.iter().map(|(place, _)| place.as_str()).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_to_the_first_response_are_in_histograms_when_asked_for() {
    const NAME: &str = "nv_inference_first_response_histogram_ms";
    let store = FolderStore::new();
    store.put("repeat.tar.gz", &repeat());
    let family = format!("metric_identifier {{ family: \"{NAME}\" }}");
    store.put(
        "pipeline.tar.gz",
        &pipeline(&format!(
            "model_metrics {{ metric_control {{ {family} histogram_options {{ buckets: [60000, 70000.5] }} }} }}"
        )),
    );
    let on = store.launch().option("--metrics-config", "histogram_latencies=true");
    for (launch, expected) in [(store.launch(), None), (on, Some("histogram"))] {
        let server = launch.start().await;
        let mut client = connect(&server).await;
        for request in [ask("slow", &[1, 2], 120), ask("none", &[], 0), ask_pipeline(2)] {
            all(open(&mut client, stream::iter([request])).await).await;
        }
        let metrics = server.metrics().await;
        assert_eq!(metrics.kind(NAME), expected);
        if expected.is_some() {
            let of = |part: &str, labels: &[(&str, &str)]| metrics.sum(&format!("{NAME}_{part}"), labels);
            let labels = [("model", "repeat.tar.gz"), ("version", "1")];
            assert_eq!(of("count", &labels), 1.0, "only what had a response");
            assert!((120.0..60_000.0).contains(&of("sum", &labels)), "the first, not the last");
            let bucket = |model: &str, bound: &str| of("bucket", &[("model", model), ("le", bound)]);
            assert_eq!((bucket("repeat.tar.gz", "100"), bucket("repeat.tar.gz", "+Inf")), (0.0, 1.0));
            assert_eq!((bucket("pipeline.tar.gz", "70000.5"), bucket("pipeline.tar.gz", "5000")), (1.0, 0.0));
            assert_eq!(of("count", &[("model", "pipeline.tar.gz/square")]) + of("count", &[("model", "square")]), 1.0);
        }
        server.stop().await;
    }
}

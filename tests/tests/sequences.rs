//! Sequences over the wire: a real ONNX model that adds up, with control inputs and a state that the server keeps.

use e2e::{Config, FolderStore, Server, Store, fp32, generated_model, infer, python};
use serde_json::{Value, json};
use test_util::archive::ArchiveBuilder;

use crate::assert_has;
use crate::perf_analyzer::analyze;

/// `accumulate` of `make_models.py` with correlation IDs of a type, `strategy` and the state with which a sequence begins.
fn accumulate(name: &str, id: &str, strategy: &str, initial: &str) -> Config {
    Config::new(name, "onnxruntime")
        .line("max_batch_size: 4")
        .input("x", "FP32", "1")
        .output("sum", "FP32", "1")
        .output("told", "INT32", "3")
        .output("name", id, "1")
        .line(&format!(
            "sequence_batching {{
               {strategy}
               max_sequence_idle_microseconds: 30000000
               control_input [
                 {{ name: \"start\" control [ {{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }} ] }},
                 {{ name: \"end\" control [ {{ kind: CONTROL_SEQUENCE_END fp32_false_true: [ 0, 1 ] }} ] }},
                 {{ name: \"ready\" control [ {{ kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] }} ] }},
                 {{ name: \"id\" control [ {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_{id} }} ] }}
               ]
               state [ {{ input_name: \"past\" output_name: \"present\" data_type: TYPE_FP32 dims: [ 1 ] initial_state: {{
                 name: \"none\" data_type: TYPE_FP32 dims: [ 1 ] {initial}
               }} }} ]
             }}"
        ))
}

const DIRECT: &str = "direct { max_queue_delay_microseconds: 500 minimum_slot_utilization: 0.5 }";
const OLDEST: &str = "oldest { max_candidate_sequences: 3 max_queue_delay_microseconds: 500 }";
const ZERO: &str = "zero_data: true";

fn onnx(id: &str) -> Vec<u8> {
    generated_model(if id == "STRING" { "accumulate_named" } else { "accumulate" })
}

fn archive(name: &str, id: &str, config: &Config) -> Vec<u8> {
    ArchiveBuilder::new()
        .file(&format!("{name}/config.pbtxt"), config.text())
        .file(&format!("{name}/1/model.onnx"), onnx(id))
        .gzip()
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_keeps_sequences_apart_over_http_and_streams() {
    let store = FolderStore::new();
    let numbered = accumulate("numbered", "UINT64", DIRECT, ZERO).line("instance_group { count: 2 kind: KIND_CPU }");
    store.put("numbered.tar.gz", &archive("numbered", "UINT64", &numbered));
    store.put("named.tar.gz", &archive("named", "STRING", &accumulate("named", "STRING", OLDEST, ZERO)));
    let server = store.launch().start().await;
    let (http, grpc) = (server.address(), server.grpc_address());
    let printed = python("triton_sequences_client.py", &[&http, &grpc, "numbered.tar.gz", "named.tar.gz"]).await;
    assert_eq!(printed.trim_end(), "sequences work");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn perf_analyzer_sends_sequences_over_http_and_streams() {
    let store = FolderStore::new();
    store.put("numbered.tar.gz", &archive("numbered", "UINT64", &accumulate("numbered", "UINT64", OLDEST, ZERO)));
    let server = store.launch().start().await;
    let sequences = ["--sequence-length", "5", "--concurrency-range", "3"];
    for (address, options) in
        [(server.address(), &["-i", "HTTP"][..]), (server.grpc_address(), &["-i", "gRPC", "--streaming"])]
    {
        let report = analyze("numbered.tar.gz", &address, &[&sequences, options].concat()).await;
        assert_has(&report, &["Sequence count: ", "Successful request count: ", "throughput: "]);
    }
    let metrics = server.metrics().await;
    assert!(metrics.sum("nv_inference_count", &[("model", "numbered.tar.gz")]) >= 2.0 * 60.0);
    assert_eq!(metrics.sum("nv_inference_request_failure", &[("model", "numbered.tar.gz")]), 0.0);
    server.stop().await;
}

fn step(x: f32, id: &str, start: bool, end: bool) -> Value {
    let mut request = infer(&[json!({ "name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x] })]);
    request["parameters"] = json!({ "sequence_id": id, "sequence_start": start, "sequence_end": end });
    request
}

async fn sum(server: &Server, target: &str, request: Value) -> f64 {
    server.invoke(target, &request).await.ok().numbers("sum")[0]
}

/// What the client says of its sequence reaches the step; and its sequences begin with what a file says.
#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_passes_the_sequence_on() {
    let inner = accumulate("inner", "STRING", DIRECT, "data_file: \"hundred\"");
    let outer = Config::ensemble("outer").line("max_batch_size: 4").input("x", "FP32", "1").output("sum", "FP32", "1");
    let outer = outer.step("inner", &[("x", "x")], &[("sum", "sum")]);
    let archive = ArchiveBuilder::new()
        .file("inner/config.pbtxt", inner.text())
        .file("inner/1/model.onnx", onnx("STRING"))
        .file("inner/initial_state/hundred", 100f32.to_le_bytes())
        .file("outer/config.pbtxt", outer.text())
        .directory("outer/1")
        .gzip();
    let store = FolderStore::new();
    store.put("pipeline.tar.gz", &archive);
    let server = store.launch().start().await;
    assert_eq!(sum(&server, "pipeline.tar.gz", step(1.0, "a", true, false)).await, 101.0);
    assert_eq!(sum(&server, "pipeline.tar.gz", step(1.0, "b", true, true)).await, 101.0);
    assert_eq!(sum(&server, "pipeline.tar.gz", step(2.0, "a", false, false)).await, 103.0);
    assert_eq!(sum(&server, "pipeline.tar.gz", step(3.0, "a", false, true)).await, 106.0);
    let answer = server.invoke("pipeline.tar.gz", &infer(&[fp32("x", &[1.0])])).await;
    assert_eq!(answer.status, 400);
    server.stop().await;
}

/// A configuration without inputs and outputs is completed with those that are the clients' business.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_feeds_and_keeps_is_completed_and_checked() {
    let text = accumulate("m", "UINT64", DIRECT, ZERO).text();
    let batching = &text[text.find("max_batch_size").expect("there")..];
    let whole = batching.split("\ninput [").next().expect("there");
    let store = FolderStore::new();
    let build = |config: &str| {
        let config = format!("name: \"m\" backend: \"onnxruntime\"\n{config}");
        ArchiveBuilder::new().file("m/config.pbtxt", config).file("m/1/model.onnx", onnx("UINT64")).gzip()
    };
    store.put("bare.tar.gz", &build(whole));
    store.put(
        "wrong.tar.gz",
        &build(&whole.replace("int32_false_true", "fp32_false_true").replace("\"past\"", "\"passed\"")),
    );
    let server = store.launch().start().await;
    let answer = server.invoke("bare.tar.gz", &step(5.0, "x", true, true)).await;
    assert_eq!(answer.status, 400);
    assert_has(&answer.text(), &["has a string as correlation ID that its input 'id' of type UINT64 cannot hold"]);
    let mut request = step(5.0, "", true, true);
    request["parameters"]["sequence_id"] = json!(u64::from(u32::MAX));
    let answer = server.invoke("bare.tar.gz", &request).await.ok();
    assert_eq!(
        (answer.output_names(), answer.numbers("sum")),
        (vec!["sum".to_owned(), "told".to_owned(), "name".to_owned()], vec![5.0])
    );
    assert_eq!(answer.numbers("told"), [1.0, 1.0, 1.0]);
    let answer = server.invoke("wrong.tar.gz", &step(5.0, "x", true, true)).await;
    assert_has(
        &answer.text(),
        &["input 'start' is configured as FP32, the model has INT32", "the model has no input 'passed'"],
    );
    server.stop().await;
}

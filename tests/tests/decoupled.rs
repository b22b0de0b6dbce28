//! Decoupled models against the real binary: over gRPC streams, and refused by calls that take exactly one answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::{Config, FolderStore, Launch, Server, Store, echo, infer, until};
use futures::{Stream, StreamExt, stream};
use protocol::grpc_service::grpc_inference_service_client::GrpcInferenceServiceClient;
use protocol::grpc_service::infer_parameter::ParameterChoice;
use protocol::grpc_service::model_infer_request::InferInputTensor;
use protocol::grpc_service::{InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use serde_json::json;
use test_util::archive::ArchiveBuilder;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::assert_has;

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

const REPEAT: &str = "backend: \"repeat\" model_transaction_policy { decoupled: true }";

/// An archive with Triton's `repeat` model.
pub(crate) fn repeat() -> Vec<u8> {
    ArchiveBuilder::new().file("repeat/config.pbtxt", REPEAT).directory("repeat/1").gzip()
}

async fn serve(change: impl FnOnce(Launch) -> Launch) -> (FolderStore, Server, Client) {
    let store = FolderStore::new();
    store.put("repeat.tar.gz", &repeat());
    store.put("echo.tar.gz", &echo());
    let server = change(store.launch()).start().await;
    let client = connect(&server).await;
    (store, server, client)
}

pub(crate) async fn connect(server: &Server) -> Client {
    let endpoint = Channel::from_shared(format!("http://{}", server.grpc_address())).expect("a URL");
    GrpcInferenceServiceClient::new(endpoint.connect().await.expect("the gRPC port listens"))
}

fn input(name: &str, datatype: &str, length: usize) -> InferInputTensor {
    let (name, datatype) = (name.to_owned(), datatype.to_owned());
    InferInputTensor { name, datatype, shape: vec![length as i64], ..InferInputTensor::default() }
}

/// Wants `values`, each after so many milliseconds.
pub(crate) fn ask(id: &str, values: &[i32], delay: u32) -> ModelInferRequest {
    let raw = |elements: Vec<[u8; 4]>| Bytes::from(elements.concat());
    ModelInferRequest {
        model_name: "repeat.tar.gz".to_owned(),
        id: id.to_owned(),
        inputs: vec![
            input("IN", "INT32", values.len()),
            input("DELAY", "UINT32", values.len()),
            input("WAIT", "UINT32", 1),
        ],
        raw_input_contents: vec![
            raw(values.iter().map(|value| value.to_le_bytes()).collect()),
            raw(values.iter().map(|_| delay.to_le_bytes()).collect()),
            raw(vec![[0; 4]]),
        ],
        ..ModelInferRequest::default()
    }
}

fn with_empty_final(mut request: ModelInferRequest) -> ModelInferRequest {
    let wanted = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    request.parameters.insert("triton_enable_empty_final_response".to_owned(), wanted);
    request
}

fn echo_of(id: &str, value: f32) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "echo.tar.gz".to_owned(),
        id: id.to_owned(),
        inputs: vec![input("X", "FP32", 1)],
        raw_input_contents: vec![Bytes::copy_from_slice(&value.to_le_bytes())],
        ..ModelInferRequest::default()
    }
}

pub(crate) async fn open(
    client: &mut Client,
    requests: impl Stream<Item = ModelInferRequest> + Send + 'static,
) -> Streaming<ModelStreamInferResponse> {
    client.model_stream_infer(requests).await.expect("a stream").into_inner()
}

/// All answers: id, the value of the first output, and whether it is said to be the last.
pub(crate) async fn all(mut answers: Streaming<ModelStreamInferResponse>) -> Vec<(String, Option<i32>, bool)> {
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await.expect("no status") {
        assert_eq!(answer.error_message, "");
        let response = answer.infer_response.expect("a response");
        all.push((response.id.clone(), value(&response), is_final(&response)));
    }
    all
}

fn value(response: &ModelInferResponse) -> Option<i32> {
    let raw = response.raw_output_contents.first()?;
    Some(i32::from_le_bytes(raw[..].try_into().expect("one INT32 or FP32")))
}

fn is_final(response: &ModelInferResponse) -> bool {
    let said = response.parameters["triton_final_response"].parameter_choice.as_ref();
    said == Some(&ParameterChoice::BoolParam(true))
}

fn triple(id: &str, value: i32, last: bool) -> (String, Option<i32>, bool) {
    (id.to_owned(), Some(value), last)
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_leave_as_they_come_and_their_end_is_told_when_asked_for() {
    let (_store, server, mut client) = serve(|launch| launch).await;
    // Cold: nobody knows yet that the model is decoupled.
    let cold = all(open(&mut client, stream::iter([ask("a", &[4, 5], 0)])).await).await;
    assert_eq!(cold, [triple("a", 4, false), triple("a", 5, false)]);
    let requests = [
        with_empty_final(ask("many", &[7, 8], 0)),
        with_empty_final(ask("none", &[], 0)),
        ask("silent", &[], 0),
        with_empty_final(echo_of("echo", f32::from_bits(9))),
    ];
    for (request, expected) in requests.into_iter().zip([
        vec![triple("many", 7, false), triple("many", 8, false), ("many".to_owned(), None, true)],
        vec![("none".to_owned(), None, true)],
        vec![],
        vec![triple("echo", 9, true)],
    ]) {
        assert_eq!(all(open(&mut client, stream::iter([request])).await).await, expected);
    }
    let metrics = server.metrics().await;
    let count = |outcome| metrics.sum("panoply_requests_total", &[("surface", "grpc"), ("outcome", outcome)]);
    assert_eq!((count("success"), count("cancelled")), (5.0, 0.0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_requests_hold_up_no_others_and_ordinary_ones_keep_their_order() {
    let (_store, server, mut client) = serve(|launch| launch).await;
    all(open(&mut client, stream::iter([ask("warm", &[0], 0), echo_of("warm", 0.0)])).await).await;
    let mut requests = vec![ask("slow", &[1, 2], 300), ask("quick", &[3, 4, 5], 0)];
    requests.extend((0..20i32).map(|bits| echo_of("echo", f32::from_bits(bits as u32))));
    let answers = all(open(&mut client, stream::iter(requests)).await).await;
    let of =
        |id: &str| answers.iter().filter(|answer| answer.0 == id).filter_map(|answer| answer.1).collect::<Vec<_>>();
    assert_eq!((of("slow"), of("quick")), (vec![1, 2], vec![3, 4, 5]));
    assert_eq!(of("echo"), (0..20).collect::<Vec<_>>());
    let last: Vec<&str> = answers.iter().rev().take(2).map(|answer| answer.0.as_str()).collect();
    assert_eq!(last, ["slow", "slow"], "all others are answered meanwhile: {answers:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_their_request_and_end_it_alone() {
    let (_store, server, mut client) = serve(|launch| launch).await;
    let mut wrong = ask("wrong", &[1, 2], 0);
    (wrong.inputs[1].shape[0], wrong.raw_input_contents[1]) = (1, Bytes::from_static(&[0; 4]));
    let mut unknown = ask("unknown", &[1], 0);
    unknown.model_name = "nope.tar.gz".to_owned();
    let mut answers = open(&mut client, stream::iter([wrong, unknown, ask("right", &[6], 0)])).await;
    let mut heard = Vec::new();
    while let Some(answer) = answers.message().await.expect("no status") {
        let response = answer.infer_response.expect("a response");
        heard.push((response.id.clone(), answer.error_message, value(&response)));
    }
    heard.sort_unstable();
    let [right, unknown, wrong] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((right.0.as_str(), right.1.as_str(), right.2), ("right", "", Some(6)));
    assert_eq!(unknown.0, "unknown");
    assert_has(&unknown.1, &["nope.tar.gz"]);
    assert_eq!(wrong.0, "wrong");
    assert_has(&wrong.1, &["expected IN and DELAY shape to match, got [2] and [1]"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_stream_stops_its_model() {
    let (_store, server, mut client) = serve(|launch| launch).await;
    let endless = ask("endless", &vec![1; 1000], 100);
    let mut answers = open(&mut client, stream::iter([endless])).await;
    answers.message().await.expect("no status").expect("the first of many");
    drop(answers);
    let labels = [("surface", "grpc"), ("outcome", "cancelled")];
    until("the request is cancelled", async || {
        (server.metrics().await.sum("panoply_requests_total", &labels) == 1.0).then_some(())
    })
    .await;
    let labels = [("reason", "CANCELED")];
    until("its model is told", async || {
        (server.metrics().await.sum("nv_inference_request_failure", &labels) == 1.0).then_some(())
    })
    .await;
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(20), "nothing is left to wait for");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_take_one_answer_refuse_it_in_tritons_words() {
    let (_store, server, mut client) = serve(|launch| launch).await;
    let tensor = |name, datatype| json!({ "name": name, "datatype": datatype, "shape": [1], "data": [1] });
    let body = infer(&[tensor("IN", "INT32"), tensor("DELAY", "UINT32"), tensor("WAIT", "UINT32")]);
    let answer = server.invoke("repeat.tar.gz", &body).await;
    assert_eq!(answer.status, 501, "{answer:?}");
    assert_has(&answer.text(), &["HTTP end point doesn't support models with decoupled transaction policy"]);
    let status = client.model_infer(ask("one", &[1], 0)).await.expect_err("it is decoupled");
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    assert_has(status.message(), &["ModelInfer RPC doesn't support models with decoupled transaction policy"]);
    let config = server.get("/v2/models/repeat.tar.gz/config").await.ok().json();
    assert_eq!(config["model_transaction_policy"], json!({ "decoupled": true }));
    assert_eq!(config["input"][0]["name"], "IN", "{config}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_loses_its_model() {
    let options = |launch: Launch| launch.option("--stream-buffer-size", "2").option("--stream-stall-timeout", "200ms");
    let (_store, server, mut client) = serve(options).await;
    // More than the windows of a connection hold.
    let much = ask("much", &vec![1; 2_000_000], 0);
    let mut answers = open(&mut client, stream::iter([much]).chain(stream::pending())).await;
    answers.message().await.expect("no status").expect("the first of many");
    // The model has one instance: it is free again, although nobody has read on.
    let next = all(open(&mut connect(&server).await, stream::iter([ask("next", &[5], 0)])).await).await;
    assert_eq!(next, [triple("next", 5, false)]);
    let error = loop {
        let answer = answers.message().await.expect("no status").expect("an end");
        if !answer.error_message.is_empty() {
            break answer.error_message;
        }
    };
    assert_has(&error, &["--stream-stall-timeout", "200ms"]);
    drop((answers, client));
    server.stop().await;
}

/// `repeat`, and its values again through `identity`; nothing says that the whole is decoupled.
fn pipeline(extra: &str) -> ArchiveBuilder {
    let tensor = |name: &str, datatype: &str, dims: &str| {
        format!("{{ name: \"{name}\" data_type: TYPE_{datatype} dims: [ {dims} ] }}")
    };
    let inputs =
        [tensor("IN", "INT32", "-1"), tensor("DELAY", "UINT32", "-1"), tensor("WAIT", "UINT32", "1")].join(", ");
    let outputs = [tensor("VALUE", "INT32", "1"), tensor("INDEX", "UINT32", "1")].join(", ");
    let map = |field: &str, from: &str, to: &str| format!("{field} {{ key: \"{from}\" value: \"{to}\" }}");
    let repeat = [
        map("input_map", "IN", "IN"),
        map("input_map", "DELAY", "DELAY"),
        map("input_map", "WAIT", "WAIT"),
        map("output_map", "OUT", "out"),
        map("output_map", "IDX", "INDEX"),
    ];
    let again = [map("input_map", "X", "out"), map("output_map", "Y", "VALUE")];
    let config = format!(
        "platform: \"ensemble\" input [ {inputs} ] output [ {outputs} ]
        ensemble_scheduling {{ {extra}
            step [ {{ model_name: \"repeat\" model_version: -1 {} }}, {{ model_name: \"again\" model_version: -1 {} }} ]
        }}",
        repeat.join(" "),
        again.join(" ")
    );
    let again = Config::new("again", "identity").input("X", "INT32", "1").output("Y", "INT32", "1");
    ArchiveBuilder::new()
        .file("repeat/config.pbtxt", REPEAT)
        .directory("repeat/1")
        .file("again/config.pbtxt", again.text())
        .directory("again/1")
        .file("pipeline/config.pbtxt", config)
        .directory("pipeline/1")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_answers_as_often_as_its_decoupled_step() {
    let files = pipeline("max_inflight_requests: 2");
    let (store, repository) = (FolderStore::new(), tempfile::tempdir().expect("a folder"));
    store.put("pipeline.tar.gz", &files.clone().gzip());
    tar::Archive::new(&files.tar()[..]).unpack(repository.path()).expect("unpacked");
    let loose = Launch::new().flag(&format!("--model-repository={}", repository.path().display()));
    for (name, launch) in [("pipeline.tar.gz", store.launch()), ("pipeline", loose)] {
        let server = launch.start().await;
        let mut client = connect(&server).await;
        let pipeline = |request| ModelInferRequest { model_name: name.to_owned(), ..request };
        let values: Vec<i32> = (0..200).collect();
        let requests = [with_empty_final(pipeline(ask("p", &values, 0))), pipeline(ask("none", &[], 0))];
        let answers = all(open(&mut client, stream::iter(requests)).await).await;
        let mut expected: Vec<_> = values.iter().map(|value| triple("p", *value, false)).collect();
        expected.push(("p".to_owned(), None, true));
        assert_eq!(answers, expected, "{name}");
        let status = client.model_infer(pipeline(ask("one", &[1], 0))).await.expect_err("it is decoupled");
        assert_eq!(status.code(), tonic::Code::Unimplemented, "{name}: {status:?}");
        let config = server.get(&format!("/v2/models/{name}/config")).await.ok().json();
        assert_eq!(config["model_transaction_policy"], json!({ "decoupled": true }), "{name}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sent_as_responses_come() {
    let (_store, server, _client) = serve(|launch| launch).await;
    let url = server.url("/v2/models/repeat.tar.gz/generate_stream");
    let body = json!({ "IN": [4, 5], "DELAY": [0, 1], "WAIT": 0 });
    let answer = server.http().post(&url, &body).await.ok();
    let text = answer.text();
    let events = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").expect("an event"));
    let events: Vec<serde_json::Value> = events.map(|event| serde_json::from_str(event).expect("JSON")).collect();
    let values: Vec<_> = events.iter().map(|event| (event["OUT"].as_i64(), event["IDX"].as_i64())).collect();
    assert_eq!(values, [(Some(4), Some(0)), (Some(5), Some(1))]);
    let none = server.http().post(&url, &json!({ "IN": [], "DELAY": [], "WAIT": 0 })).await.ok();
    assert_eq!(none.text(), "");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decoupled_model_is_warmed_up_by_streams() {
    let input = |name: &str, datatype: &str, length: usize| {
        format!("inputs {{ key: '{name}' value {{ data_type: TYPE_{datatype} dims: {length} random_data: true }} }}")
    };
    let archive = |delays: usize| {
        let inputs = [input("IN", "INT32", 2), input("DELAY", "UINT32", delays), input("WAIT", "UINT32", 1)].concat();
        let config = format!("{REPEAT} model_warmup {{ name: 's' count: 2 {inputs} }}");
        ArchiveBuilder::new().file("repeat/config.pbtxt", config).directory("repeat/1").gzip()
    };
    let store = FolderStore::new();
    store.put("repeat.tar.gz", &archive(2));
    store.put("broken.tar.gz", &archive(3));
    let server = store.launch().start().await;
    let mut client = connect(&server).await;
    let broken = ModelInferRequest { model_name: "broken.tar.gz".to_owned(), ..ask("b", &[1], 0) };
    let requests = vec![ask("a", &[5, 6], 0), broken];
    let mut answers = client.model_stream_infer(stream::iter(requests)).await.expect("begins").into_inner();
    let (mut values, mut errors) = (0, Vec::new());
    while let Some(answer) = answers.next().await {
        let answer = answer.expect("an answer");
        match answer.error_message.is_empty() {
            true => values += 1,
            false => errors.push(answer.error_message),
        }
    }
    assert_eq!((values, errors.len()), (2, 1), "{errors:?}");
    assert_has(&errors[0], &["model_warmup sample 's'", "expected IN and DELAY shape to match"]);
    server.stop().await;
}

//! The statuses and texts that Triton's clients match on, row by row, over HTTP and over gRPC.

use bytes::Bytes;
use e2e::{
    Answer, Config, ENDLESS, Endless, FolderStore, Http, Server, Store, generated_model, infer, spin_request, until,
};
use http::Method;
use protocol::grpc_service::grpc_inference_service_client::GrpcInferenceServiceClient;
use protocol::grpc_service::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use protocol::grpc_service::{ModelInferRequest, ModelReadyRequest};
use serde_json::{Value, json};
use test_util::archive::ArchiveBuilder;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::assert_has;

type Client = GrpcInferenceServiceClient<Channel>;

async fn connect(server: &Server) -> Client {
    let endpoint = Channel::from_shared(format!("http://{}", server.grpc_address())).expect("a URL");
    GrpcInferenceServiceClient::new(endpoint.connect().await.expect("the gRPC port listens"))
}

/// An input of zeros: of this shape, with so many elements of four bytes.
fn zeros(name: &str, datatype: &str, shape: &[i64], elements: usize) -> Value {
    json!({ "name": name, "datatype": datatype, "shape": shape, "data": vec![0; elements] })
}

/// The same request for gRPC; elements become raw zeros.
fn message(model: &str, request: &Value) -> ModelInferRequest {
    let array = |name: &str| request[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let inputs = array("inputs");
    let raw = |input: &Value| Bytes::from(vec![0; 4 * input["data"].as_array().map_or(0, Vec::len)]);
    ModelInferRequest {
        model_name: model.to_owned(),
        raw_input_contents: inputs.iter().map(raw).collect(),
        inputs: inputs
            .iter()
            .map(|input| InferInputTensor {
                name: text(&input["name"]),
                datatype: text(&input["datatype"]),
                shape: input["shape"].as_array().expect("a list").iter().filter_map(Value::as_i64).collect(),
                ..InferInputTensor::default()
            })
            .collect(),
        outputs: array("outputs")
            .iter()
            .map(|output| InferRequestedOutputTensor { name: text(&output["name"]), ..Default::default() })
            .collect(),
        ..ModelInferRequest::default()
    }
}

async fn both(server: &Server, client: &mut Client, model: &str, request: &Value) -> (Answer, Status) {
    let url = server.url(&format!("/v2/models/{model}/infer"));
    let answer = server.http().post(&url, request).await;
    let status = client.model_infer(message(model, request)).await.expect_err("a failure");
    (answer, status)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request() {
    let config = Config::new("m", "identity").input("A", "FP32", "2").input("B", "FP32", "2").input("C", "INT32", "1");
    let config = config.output("X", "FP32", "2").output("Y", "FP32", "2").output("Z", "INT32", "1");
    let huge = Config::new("huge", "identity").input("A", "FP32", "2").output("X", "FP32", "2");
    let huge = huge.parameter("memory_bytes", "99000000000");
    let store = FolderStore::new();
    store.put("m", &ArchiveBuilder::new().file("m/config.pbtxt", config.text()).gzip());
    store.put("huge", &ArchiveBuilder::new().file("huge/config.pbtxt", huge.text()).gzip());
    let server = store.launch().option("--model-memory", "2GiB").start().await;
    let mut client = connect(&server).await;
    let (a, b) = (|| zeros("A", "FP32", &[2], 2), || zeros("B", "FP32", &[2], 2));
    let c = || zeros("C", "INT32", &[1], 1);
    let mut unknown_output = infer(&[a(), b(), c()]);
    unknown_output["outputs"] = json!([{ "name": "x" }]);
    let rows = [
        ("nope", infer(&[a()]), 404, Code::NotFound, "Request for unknown model: 'nope' is not found"),
        (
            "m",
            infer(&[a(), b()]),
            400,
            Code::InvalidArgument,
            "expected 3 inputs but got 2 inputs for model 'm'. Got input(s) ['A','B'], but missing required input(s) ['C']. \
             Please provide all required input(s).",
        ),
        (
            "m",
            infer(&[zeros("A", "INT32", &[2], 2), b(), c()]),
            400,
            Code::InvalidArgument,
            "[request id: <id_unknown>] inference input 'A' data-type is 'INT32', but model 'm' expects 'FP32'",
        ),
        (
            "m",
            infer(&[zeros("A", "FP32", &[3], 3), b(), c()]),
            400,
            Code::InvalidArgument,
            "unexpected shape for input 'A' for model 'm'. Expected [2], got [3]",
        ),
        ("m", infer(&[zeros("A", "FP32", &[2], 1), b(), c()]), 400, Code::InvalidArgument, "input 'A': "),
        (
            "m",
            infer(&[a(), b(), zeros("D", "INT32", &[1], 1)]),
            400,
            Code::InvalidArgument,
            "unexpected inference input 'D' for model 'm'",
        ),
        ("m", unknown_output, 400, Code::InvalidArgument, "unexpected inference output 'x' for model 'm'"),
        (
            "m",
            infer(&[zeros("A", "FP32", &[i64::MAX, 9], 1), b(), c()]),
            400,
            Code::InvalidArgument,
            "causes total element count to exceed maximum size of",
        ),
        ("huge", infer(&[a()]), 503, Code::ResourceExhausted, "no room for huge on host"),
    ];
    for (model, request, http, grpc, text) in rows {
        let (answer, status) = both(&server, &mut client, model, &request).await;
        assert_eq!((answer.status, status.code()), (http, grpc), "{text}: {answer:?} {status:?}");
        assert_has(&answer.error(), &[text]);
        assert_has(status.message(), &[text]);
    }
    let not_ready = server.get("/v2/models/nope/ready").await;
    assert_eq!((not_ready.status, not_ready.error().as_str()), (400, "Model version not ready"));
    let about = ModelReadyRequest { name: "nope".to_owned(), version: String::new() };
    assert!(!client.model_ready(about).await.expect("told").into_inner().ready);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_body() {
    let store = FolderStore::new();
    store.put("echo", &e2e::echo());
    let server = store.launch().option("--max-request-size", "100KiB").start().await;
    let mut client = connect(&server).await;
    let deep = format!(r#"{{"inputs":[],"more":{}{}}}"#, "[".repeat(100), "]".repeat(100));
    let large = vec![b' '; 200_000];
    type Row<'a> = (&'a [u8], [(&'static str, &'static str); 1], u16, &'static str);
    let rows: [Row<'_>; 6] = [
        (b"{bad", [("x", "")], 400, "expected a member's name in quotes, found `bad`"),
        (b"{}", [("x", "")], 400, "unable to parse 'inputs'"),
        (
            b"{\"inputs\":[{\"name\":\"X\"}]}",
            [("x", "")],
            400,
            "input 'X': unable to parse the input: it has no member 'shape'",
        ),
        (deep.as_bytes(), [("x", "")], 400, "JSON nests deeper than the limit of 100 levels"),
        (&large, [("x", "")], 413, "the 102400 bytes that --max-request-size allows"),
        (b"{}", [("content-encoding", "zstd")], 415, "send gzip, deflate, or the body uncompressed"),
    ];
    for (body, headers, status, text) in rows {
        let url = server.url("/v2/models/echo/infer");
        let answer = server.http().send(Method::POST, &url, &headers, body.to_vec()).await;
        assert_eq!(answer.status, status, "{text}: {answer:?}");
        assert_has(&answer.error(), &[text]);
    }
    let status = client.model_infer(message("echo", &infer(&[zeros("X", "FP32", &[50_000], 50_000)]))).await;
    let status = status.expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_has(status.message(), &["the 102400 bytes that --max-request-size allows"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_that_are_full_or_too_slow() {
    let spin = |name: &str, policy: &str| {
        let config = Config::new(name, "onnxruntime").input("rounds", "INT64", "1").output("done", "INT64", "1");
        let config = config.line(&format!("dynamic_batching {{ default_queue_policy {{ {policy} }} }}"));
        let file = |archive: ArchiveBuilder| archive.file(&format!("{name}/1/model.onnx"), generated_model("spin"));
        file(ArchiveBuilder::new().file(&format!("{name}/config.pbtxt"), config.text())).gzip()
    };
    let store = FolderStore::new();
    store.put("full", &spin("full", "max_queue_size: 1"));
    store.put("slow", &spin("slow", "default_timeout_microseconds: 50000"));
    let server = store.launch().start().await;
    let mut client = connect(&server).await;
    for (model, waiting, text) in
        [("full", true, "Exceeds maximum queue size"), ("slow", false, "Request timeout expired")]
    {
        let url = server.url(&format!("/v2/models/{model}/infer"));
        server.http().post(&url, &spin_request(1)).await.ok();
        let ask = |rounds| {
            let url = url.clone();
            tokio::spawn(async move { Http::new().post(&url, &spin_request(rounds)).await })
        };
        let endless = Endless::post(&url, &spin_request(ENDLESS));
        let mut others = Vec::new();
        let until_in_flight = async |count: f64| {
            until("requests are in flight", async || {
                (server.metrics().await.sum("panoply_requests_in_flight", &[]) == count).then_some(())
            })
            .await;
        };
        until_in_flight(1.0).await;
        if waiting {
            others.push(ask(1));
            until("one waits", async || {
                (server.metrics().await.sum("nv_inference_pending_request_count", &[]) == 1.0).then_some(())
            })
            .await;
        }
        let answer = server.http().post(&url, &spin_request(1)).await;
        let mut request = message(model, &infer(&[zeros("rounds", "INT64", &[1], 2)]));
        request.model_name = model.to_owned();
        let status = client.model_infer(request).await.expect_err("the queue is as it is");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_has(&answer.error(), &[text]);
        assert_has(status.message(), &[text]);
        drop(endless);
        for other in others {
            other.await.expect("the request runs").ok();
        }
    }
    server.stop().await;
}

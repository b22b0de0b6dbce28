//! gRPC against the real binary: archives by name and by metadata, errors, streams, health, draining.

use bytes::Bytes;
use e2e::{FolderStore, Server, Store, echo};
use futures::StreamExt;
use protocol::grpc_service::grpc_inference_service_client::GrpcInferenceServiceClient;
use protocol::grpc_service::model_infer_request::InferInputTensor;
use protocol::grpc_service::{ModelInferRequest, ModelInferResponse, ModelReadyRequest, ServerReadyRequest};
use tonic::transport::Channel;
use tonic::{Code, Request};

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

pub(crate) async fn connect(server: &Server) -> Client {
    let endpoint = Channel::from_shared(format!("http://{}", server.grpc_address())).expect("a URL");
    GrpcInferenceServiceClient::new(endpoint.connect().await.expect("the gRPC port listens"))
}

pub(crate) fn floats(model: &str, values: &[f32]) -> ModelInferRequest {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![InferInputTensor {
            name: "X".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![values.len() as i64],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![Bytes::from(raw)],
        ..ModelInferRequest::default()
    }
}

pub(crate) fn values(response: &ModelInferResponse) -> Vec<f32> {
    response.raw_output_contents[0].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_answer_over_grpc_as_over_http() {
    let store = FolderStore::new();
    store.put("team/echo.tar.gz", &echo());
    let server = store.launch().start().await;
    let mut client = connect(&server).await;
    assert!(client.server_ready(ServerReadyRequest {}).await.expect("told").into_inner().ready);
    let about = || ModelReadyRequest { name: "team/echo.tar.gz".to_owned(), version: String::new() };
    assert!(!client.model_ready(about()).await.expect("told").into_inner().ready);

    // A slash in a name needs no escape here.
    let first = client.model_infer(floats("team/echo.tar.gz", &[1.0, 2.0])).await.expect("an answer");
    assert_eq!(first.metadata().get("x-panoply-cache").expect("told"), "store");
    assert_eq!(values(first.get_ref()), [1.0, 2.0]);
    assert!(client.model_ready(about()).await.expect("told").into_inner().ready);
    let mut call = Request::new(floats("echo", &[3.0]));
    call.metadata_mut().insert("x-amzn-sagemaker-target-model", "team/echo.tar.gz".parse().expect("ASCII"));
    let second = client.model_infer(call).await.expect("an answer");
    assert_eq!(second.metadata().get("x-panoply-cache").expect("told"), "memory");
    assert_eq!((values(second.get_ref()), second.get_ref().model_name.as_str()), (vec![3.0], "echo"));

    let status = client.model_infer(floats("nope.tar.gz", &[1.0])).await.expect_err("unknown");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert!(status.message().contains("nope.tar.gz"), "{status:?}");
    let mut wrong = floats("team/echo.tar.gz", &[1.0]);
    wrong.inputs[0].datatype = "INT32".to_owned();
    let status = client.model_infer(wrong).await.expect_err("a wrong type");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");

    let metrics = server.metrics().await;
    let count = |outcome| metrics.sum("panoply_requests_total", &[("surface", "grpc"), ("outcome", outcome)]);
    assert_eq!((count("success"), count("not_found"), count("invalid_argument")), (2.0, 1.0, 1.0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_answered_in_order_and_does_not_hold_up_the_end() {
    let store = FolderStore::new();
    store.put("echo.tar.gz", &echo());
    let server = store.launch().start().await;
    let mut client = connect(&server).await;
    let requests = (0..50u8).map(|number| floats("echo.tar.gz", &[f32::from(number)]));
    let requests = futures::stream::iter(requests).chain(futures::stream::pending());
    let mut answers = client.model_stream_infer(requests).await.expect("a stream").into_inner();
    for number in 0..50u8 {
        let answer = answers.message().await.expect("no status").expect("open");
        assert_eq!(answer.error_message, "");
        assert_eq!(values(&answer.infer_response.expect("a response")), [f32::from(number)]);
    }
    let stopping = tokio::spawn(server.stop());
    let status = answers.message().await.expect_err("the server ends");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the server is shutting down"));
    drop((answers, client));
    stopping.await.expect("a good end");
}

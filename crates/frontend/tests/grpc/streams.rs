//! `ModelStreamInfer`.

use frontend::{Admission, FrontendConfig, ServeConfig};
use futures::stream::{self, StreamExt};
use protocol::grpc_service::infer_parameter::ParameterChoice;
use protocol::grpc_service::{ModelInferRequest, ModelStreamInferResponse};
use tonic::{Code, Request};

use crate::{Running, request, start, start_with};

fn numbered(model: &str, id: usize) -> ModelInferRequest {
    ModelInferRequest { id: id.to_string(), ..request(model, &[id as f32]) }
}

fn id(answer: &ModelStreamInferResponse) -> &str {
    answer.infer_response.as_ref().map_or("", |response| &response.id)
}

async fn collect(server: &mut Running, requests: Vec<ModelInferRequest>) -> Vec<ModelStreamInferResponse> {
    let answers = server.client.model_stream_infer(stream::iter(requests)).await.expect("a stream").into_inner();
    answers.map(|answer| answer.expect("no status")).collect().await
}

#[tokio::test]
async fn every_request_is_answered_in_order_and_errors_end_nothing() {
    let mut server = start().await;
    let model = |id: usize| if id.is_multiple_of(7) { "nope" } else { "identity" };
    let answers = collect(&mut server, (0..100).map(|id| numbered(model(id), id)).collect()).await;
    assert_eq!(answers.len(), 100);
    for (position, answer) in answers.iter().enumerate() {
        assert_eq!(id(answer), position.to_string());
        let response = answer.infer_response.as_ref().expect("always there");
        if model(position) == "nope" {
            assert_eq!(answer.error_message, "Request for unknown model: 'nope' is not found");
            assert!(response.outputs.is_empty());
        } else {
            assert_eq!(answer.error_message, "");
            assert_eq!(response.raw_output_contents[0][..], (position as f32).to_le_bytes());
            let last = response.parameters["triton_final_response"].parameter_choice.as_ref();
            assert_eq!(last, Some(&ParameterChoice::BoolParam(true)));
        }
    }
}

#[tokio::test]
async fn requests_of_a_stream_run_at_once() {
    let mut server = start().await;
    let requests = stream::iter((0..2).map(|id| numbered("slow", id))).chain(stream::pending());
    let mut answers = server.client.model_stream_infer(requests).await.expect("a stream").into_inner();
    server.fake.wait_for_requests(2).await;
    server.fake.gate.add_permits(2);
    for expected in ["0", "1"] {
        assert_eq!(id(&answers.message().await.expect("no status").expect("open")), expected);
    }
}

#[tokio::test]
async fn errors_become_statuses_for_those_who_ask() {
    let mut server = start().await;
    let mut call = Request::new(stream::iter([numbered("identity", 0), numbered("nope", 1), numbered("identity", 2)]));
    call.metadata_mut().insert("triton_grpc_error", "true".parse().expect("ASCII"));
    let mut answers = server.client.model_stream_infer(call).await.expect("a stream").into_inner();
    assert_eq!(id(&answers.message().await.expect("no status").expect("open")), "0");
    assert_eq!(answers.message().await.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_stream() {
    let config = FrontendConfig { max_request_size: 1000, ..FrontendConfig::default() };
    let mut server = start_with(Admission::default(), config, ServeConfig::default()).await;
    let requests = stream::iter([numbered("identity", 0), request("identity", &[0.0; 1000])]);
    let mut answers = server.client.model_stream_infer(requests).await.expect("a stream").into_inner();
    assert_eq!(id(&answers.message().await.expect("no status").expect("open")), "0");
    let status = answers.message().await.expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("1000 bytes that --max-request-size allows"), "{status:?}");
}

#[tokio::test]
async fn answers_tell_where_an_archive_was_found() {
    let mut server = start().await;
    let answers = collect(&mut server, vec![numbered("team/x.tar.gz", 0)]).await;
    let parameters = &answers[0].infer_response.as_ref().expect("a response").parameters;
    let told = |name: &str| parameters[name].parameter_choice.clone();
    assert_eq!(told("x-panoply-cache"), Some(ParameterChoice::StringParam("store".to_owned())));
    assert_eq!(told("x-panoply-version"), Some(ParameterChoice::StringParam("\"etag-1\"".to_owned())));
}

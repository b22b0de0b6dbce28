//! `ModelStreamInfer`.

use std::time::{Duration, Instant};

use frontend::{Admission, FrontendConfig, ServeConfig};
use futures::stream::{self, StreamExt};
use protocol::grpc_service::infer_parameter::ParameterChoice;
use protocol::grpc_service::{InferParameter, ModelInferRequest, ModelStreamInferResponse};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

use crate::fake::until;
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
async fn answers_behind_a_slow_one_are_bounded() {
    let mut server = start().await;
    let model = |id: usize| if id == 0 { "slow" } else { "identity" };
    let requests: Vec<_> = (0..100).map(|id| numbered(model(id), id)).collect();
    let answers = server.client.model_stream_infer(stream::iter(requests)).await.expect("a stream").into_inner();
    server.fake.wait_for_requests(32).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.fake.requests.lock().expect("not poisoned").len(), 32, "further ones stay on the wire");
    server.fake.gate.add_permits(1);
    let answers: Vec<_> = answers.map(|answer| id(&answer.expect("no status")).to_owned()).collect().await;
    assert_eq!(answers, (0..100).map(|id| id.to_string()).collect::<Vec<_>>());
}

/// Requests that end without a message: no write to the socket wakes the stream by chance.
#[tokio::test]
async fn a_place_that_one_leaves_goes_to_the_next_though_nothing_else_happens() {
    let mut server = start().await;
    let silent = || {
        let choice = Some(ParameterChoice::StringParam("gate".to_owned()));
        let parameters = [("then".to_owned(), InferParameter { parameter_choice: choice })].into();
        ModelInferRequest { parameters, ..request("repeat", &[0.0]) }
    };
    let requests = stream::iter((0..40).map(move |_| silent())).chain(stream::pending());
    let _answers = server.client.model_stream_infer(requests).await.expect("a stream");
    server.fake.wait_for_requests(32).await;
    for ended in 1..=8 {
        server.fake.gate.add_permits(1);
        server.fake.wait_for_requests(32 + ended).await;
    }
}

#[tokio::test]
async fn requests_that_wait_for_their_turn_in_a_sequence_are_counted() {
    let mut server = start_with(Admission::new(10, 100_000), FrontendConfig::default(), ServeConfig::default()).await;
    let large = |model: &str| request(model, &[1.0; 10_000]);
    let of_sequence = || {
        let choice = Some(ParameterChoice::Int64Param(7));
        let parameters = [("sequence_id".to_owned(), InferParameter { parameter_choice: choice })].into();
        ModelInferRequest { parameters, ..large("slow") }
    };
    let requests = stream::iter([of_sequence(), of_sequence()]).chain(stream::pending());
    let mut answers = server.client.model_stream_infer(requests).await.expect("a stream").into_inner();
    server.fake.wait_for_requests(1).await;
    // Two of 40 kB are held, though one has not begun.
    let began = Instant::now();
    let status = loop {
        match server.client.model_infer(large("identity")).await {
            Err(status) => break status,
            Ok(_) => assert!(began.elapsed() < Duration::from_secs(20), "there is room for a third"),
        }
    };
    assert!(status.message().contains("100000 bytes that --max-buffered-bytes allows"), "{status:?}");
    server.fake.gate.add_permits(2);
    for _ in 0..2 {
        assert_eq!(answers.message().await.expect("no status").expect("open").error_message, "");
    }
    server.client.model_infer(large("identity")).await.expect("there is room again");
    until(|| server.fake.unwritten() == 0).await;
}

#[tokio::test]
async fn a_request_that_does_not_fit_is_refused_alone() {
    let mut server = start_with(Admission::new(10, 20_000), FrontendConfig::default(), ServeConfig::default()).await;
    let large = ModelInferRequest { id: "large".to_owned(), ..request("identity", &[1.0; 50_000]) };
    let requests = vec![numbered("identity", 0), large, numbered("identity", 2)];
    let answers = collect(&mut server, requests).await;
    let errors: Vec<_> = answers.iter().map(|answer| answer.error_message.as_str()).collect();
    assert_eq!((errors.len(), errors[0], errors[2]), (3, "", ""));
    assert!(errors[1].contains("20000 bytes that --max-buffered-bytes allows"), "{errors:?}");
    assert_eq!((id(&answers[0]), id(&answers[2])), ("0", "2"));
}

#[tokio::test]
async fn messages_are_compressed_both_ways() {
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut server = start().await;
        server.client = server.client.send_compressed(encoding).accept_compressed(encoding);
        // Small and large ones are packed in places of their own.
        let message = |size: usize| ModelInferRequest { id: size.to_string(), ..request("identity", &vec![7.0; size]) };
        let sizes = [1, 300_000, 5];
        let requests = stream::iter(sizes.map(message));
        let answers = server.client.model_stream_infer(requests).await.expect("a stream");
        assert!(answers.metadata().get("grpc-encoding").is_some(), "{answers:?}");
        let answers: Vec<_> = answers.into_inner().map(|answer| answer.expect("no status")).collect().await;
        for (size, answer) in sizes.into_iter().zip(&answers) {
            let response = answer.infer_response.as_ref().expect("always there");
            assert_eq!(response.raw_output_contents[0], message(size).raw_input_contents[0]);
        }
        assert_eq!(answers.len(), sizes.len());
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

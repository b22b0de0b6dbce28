//! Single calls: inference, metadata, health, what is refused.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use frontend::{Admission, FrontendConfig, ServeConfig};
use inference::{Parameter, TargetModel};
use protocol::grpc_service::infer_parameter::ParameterChoice;
use protocol::grpc_service::model_infer_request::InferRequestedOutputTensor;
use protocol::grpc_service::{
    InferParameter, ModelConfigRequest, ModelInferRequest, ModelMetadataRequest, ModelReadyRequest,
    ModelRepositoryParameter, RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
    ServerLiveRequest, ServerMetadataRequest, ServerReadyRequest, SystemSharedMemoryStatusRequest,
};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::{request, start, start_with};

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

fn with_target(message: ModelInferRequest, target: &str) -> Request<ModelInferRequest> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-amzn-sagemaker-target-model", target.parse().expect("ASCII"));
    request
}

#[tokio::test]
async fn an_inference_goes_there_and_back() {
    let mut server = start().await;
    let mut message = request("identity", &[1.5, -2.0]);
    message.parameters = BTreeMap::from([
        ("timeout".to_owned(), parameter(ParameterChoice::Int64Param(5_000_000))),
        ("scale".to_owned(), parameter(ParameterChoice::DoubleParam(0.5))),
    ]);
    let raw = message.raw_input_contents.clone();
    let answer = server.client.model_infer(message).await.expect("an answer").into_inner();
    assert_eq!(
        (answer.model_name.as_str(), answer.model_version.as_str(), answer.id.as_str()),
        ("identity", "1", "r1")
    );
    let output = &answer.outputs[0];
    assert_eq!((output.name.as_str(), output.datatype.as_str(), &output.shape[..]), ("OUTPUT0", "FP32", &[1, 2][..]));
    assert_eq!(answer.raw_output_contents, raw);
    let seen = server.fake.last_request();
    let timeout = ("timeout".to_owned(), Parameter::Int64(5_000_000));
    assert_eq!(seen.parameters, BTreeMap::from([("scale".to_owned(), Parameter::Double(0.5)), timeout]));
    assert_eq!(seen.deadline, None, "the model's queue policy decides what the timeout means");
    crate::fake::until(|| server.fake.unwritten() == 0).await;
}

#[tokio::test]
async fn classes_instead_of_values() {
    let mut server = start().await;
    let mut message = request("identity", &[0.1, 0.7, 0.2]);
    let parameters = BTreeMap::from([("classification".to_owned(), parameter(ParameterChoice::Int64Param(2)))]);
    message.outputs = vec![InferRequestedOutputTensor { name: "OUTPUT0".to_owned(), parameters }];
    let answer = server.client.model_infer(message).await.expect("an answer").into_inner();
    assert_eq!((answer.outputs[0].datatype.as_str(), &answer.outputs[0].shape[..]), ("BYTES", &[1, 2][..]));
    let text = String::from_utf8_lossy(&answer.raw_output_contents[0]).into_owned();
    assert!(text.contains("0.700000:1:dog") && text.contains("0.200000:2:emu"), "{text}");
}

#[tokio::test]
async fn the_archive_is_metadata_or_the_models_name() {
    let mut server = start().await;
    let answer = server.client.model_infer(request("team/x.tar.gz", &[1.0])).await.expect("an answer");
    assert_eq!(answer.metadata().get("x-panoply-cache").expect("told"), "store");
    assert_eq!(answer.metadata().get("x-panoply-version").expect("told"), "\"etag-1\"");
    assert!(answer.metadata().get("server-timing").expect("told").to_str().expect("ASCII").contains("download;dur=12"));
    assert_eq!(server.fake.last_request().model.target, None);

    let call = with_target(request("inner", &[1.0]), "team/x.tar.gz");
    server.client.model_infer(call).await.expect("an answer");
    let key = server.fake.last_request().model;
    assert_eq!(key.target, Some(TargetModel::new("team/x.tar.gz").expect("valid")));
    assert_eq!(key.model.as_deref(), Some("inner"));

    let call = with_target(request("", &[1.0]), "x.tar.gz");
    let answer = server.client.model_infer(call).await.expect("an answer").into_inner();
    assert_eq!(answer.model_name, "x.tar.gz");
    let status = server.client.model_infer(with_target(request("m", &[1.0]), "../x")).await.expect_err("climbs");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn failures_have_the_codes_of_the_table() {
    let mut server = start().await;
    let cases = [
        ("nope", Code::NotFound),
        ("overloaded", Code::Unavailable),
        ("noroom", Code::ResourceExhausted),
        ("deadline", Code::DeadlineExceeded),
        ("unsupported", Code::Unimplemented),
        ("broken", Code::Internal),
        ("bad", Code::InvalidArgument),
        ("panic", Code::Internal),
    ];
    for (model, code) in cases {
        let status = server.client.model_infer(request(model, &[1.0])).await.expect_err(model);
        assert_eq!(status.code(), code, "{model}: {status:?}");
    }
    let status = server.client.model_infer(request("nope", &[1.0])).await.expect_err("unknown");
    assert_eq!(status.message(), "Request for unknown model: 'nope' is not found");
    for version in ["x", "0", "-1"] {
        let message = ModelInferRequest { model_version: version.to_owned(), ..request("identity", &[1.0]) };
        let status = server.client.model_infer(message).await.expect_err(version);
        assert!(status.message().contains("failed to get model version from specified version string"), "{status:?}");
    }
    let mut request = Request::new(request("identity", &[1.0]));
    request.metadata_mut().insert("grpc-timeout", "soon".parse().expect("ASCII"));
    let status = server.client.model_infer(request).await.expect_err("no timeout");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
}

#[tokio::test]
async fn a_calls_deadline_is_the_requests() {
    let mut server = start().await;
    let mut call = Request::new(request("identity", &[1.0]));
    call.set_timeout(Duration::from_secs(3));
    server.client.model_infer(call).await.expect("an answer");
    let deadline = server.fake.last_request().deadline.expect("a deadline");
    assert!(deadline <= Instant::now() + Duration::from_secs(3));
}

#[tokio::test]
async fn messages_are_bounded_both_ways_and_large_ones_pass() {
    let large = vec![1.0; 2 << 20];
    let config = FrontendConfig { max_response_size: 1 << 20, max_request_size: 9 << 20, ..FrontendConfig::default() };
    let mut server = start_with(Admission::default(), config, ServeConfig::default()).await;
    let status = server.client.model_infer(request("identity", &large)).await.expect_err("8 MiB back");
    assert!(status.message().contains("--max-response-size"), "{status:?}");
    let status = server.client.model_infer(request("identity", &[0.0; 3 << 20])).await.expect_err("12 MiB there");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("9437184 bytes that --max-request-size allows"), "{status:?}");
    // 12 MiB of zeros are small until they are read.
    let mut zipped = server.client.clone().send_compressed(CompressionEncoding::Gzip);
    let status = zipped.model_infer(request("identity", &[0.0; 3 << 20])).await.expect_err("12 MiB there");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");

    let mut server = start().await;
    let answer = server.client.model_infer(request("identity", &large)).await.expect("within").into_inner();
    assert_eq!(answer.raw_output_contents[0].len(), large.len() * 4);
}

#[tokio::test]
async fn too_many_requests_are_refused() {
    let mut server = start_with(Admission::new(1, 1 << 20), FrontendConfig::default(), ServeConfig::default()).await;
    let mut first = server.client.clone();
    let first = tokio::spawn(async move { first.model_infer(request("slow", &[1.0])).await });
    server.fake.wait_for_requests(1).await;
    let status = server.client.model_infer(request("identity", &[1.0])).await.expect_err("the second");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("--max-requests-in-flight"), "{status:?}");
    server.fake.gate.add_permits(1);
    first.await.expect("no panic").expect("an answer");
    let status = server.client.model_infer(request("identity", &[0.0; 1 << 18])).await.expect_err("over 1 MiB");
    assert!(status.message().contains("--max-buffered-bytes"), "{status:?}");
}

#[tokio::test]
async fn answers_are_compressed_when_the_request_was() {
    let server = start().await;
    let accepting = || server.client.clone().accept_compressed(CompressionEncoding::Gzip);
    let message = || request("identity", &[0.0; 1000]);
    let plain = accepting().model_infer(message()).await.expect("an answer");
    assert!(plain.metadata().get("grpc-encoding").is_none());
    let mut zipping = accepting().send_compressed(CompressionEncoding::Gzip);
    let zipped = zipping.model_infer(message()).await.expect("an answer");
    assert_eq!(zipped.metadata().get("grpc-encoding").expect("compressed"), "gzip");
    assert_eq!(zipped.get_ref().raw_output_contents, plain.get_ref().raw_output_contents);
    let mut deflating = server.client.clone().send_compressed(CompressionEncoding::Deflate);
    deflating.model_infer(message()).await.expect("deflate is read too");
}

#[tokio::test]
async fn what_the_server_and_its_models_are() {
    let mut server = start().await;
    let client = &mut server.client;
    assert!(client.server_live(ServerLiveRequest {}).await.expect("alive").into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.expect("told").into_inner().ready);
    let metadata = client.server_metadata(ServerMetadataRequest {}).await.expect("told").into_inner();
    assert_eq!(metadata.name, "panoply");
    assert!(metadata.extensions.contains(&"binary_tensor_data".to_owned()), "{metadata:?}");

    let ready = |name: &str, version: &str| ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
    for (name, version, expected) in [("identity", "", true), ("identity", "2", false), ("nope", "", false)] {
        let answer = client.model_ready(ready(name, version)).await.expect("told").into_inner();
        assert_eq!(answer.ready, expected, "{name} {version}");
    }
    let about = ModelMetadataRequest { name: "identity".to_owned(), version: String::new() };
    let metadata = client.model_metadata(about).await.expect("told").into_inner();
    assert_eq!((metadata.name.as_str(), metadata.versions.as_slice()), ("identity", &["1".to_owned()][..]));
    assert_eq!((metadata.inputs[0].datatype.as_str(), &metadata.inputs[0].shape[..]), ("FP32", &[-1, -1][..]));
    let about = ModelConfigRequest { name: "identity".to_owned(), version: String::new() };
    let config = client.model_config(about).await.expect("told").into_inner().config.expect("a configuration");
    assert_eq!((config.name.as_str(), config.max_batch_size), ("identity", 8));
    let about = ModelConfigRequest { name: "nope".to_owned(), version: String::new() };
    assert_eq!(client.model_config(about).await.expect_err("unknown").code(), Code::NotFound);

    let index = RepositoryIndexRequest { repository_name: String::new(), ready: false };
    let models = client.repository_index(index).await.expect("told").into_inner().models;
    let lines: Vec<_> = models.iter().map(|line| (line.name.as_str(), line.state.as_str())).collect();
    assert_eq!(lines, [("broken", "UNAVAILABLE"), ("cached", ""), ("identity", "READY"), ("on-gpus", "READY")]);
    let index = RepositoryIndexRequest { repository_name: String::new(), ready: true };
    assert_eq!(client.repository_index(index).await.expect("told").into_inner().models.len(), 2);
}

#[tokio::test]
async fn models_are_loaded_and_unloaded_by_name() {
    use protocol::grpc_service::model_repository_parameter::ParameterChoice::{BoolParam, BytesParam, StringParam};
    let server = start().await;
    let mut client = server.client.clone();
    let parameter = |name: &str, choice| (name.to_owned(), ModelRepositoryParameter { parameter_choice: Some(choice) });
    let load = |name: &str| RepositoryModelLoadRequest { model_name: name.to_owned(), ..Default::default() };
    let given = [parameter("config", StringParam("{}".to_owned())), parameter("file:1/m", BytesParam(vec![1].into()))];
    let request = RepositoryModelLoadRequest { parameters: given.into(), ..load("team/x.tar.gz") };
    client.repository_model_load(request).await.expect("loads");
    let request = RepositoryModelUnloadRequest {
        model_name: "m".to_owned(),
        parameters: [parameter("unload_dependents", BoolParam(true))].into(),
        ..Default::default()
    };
    client.repository_model_unload(request).await.expect("unloads");
    let calls = server.fake.control_calls.lock().expect("not poisoned").clone();
    let given = calls[0].1.as_ref().expect("a load");
    assert_eq!((calls[0].0.as_str(), given.config.as_deref()), ("team/x.tar.gz", Some("{}")));
    assert_eq!(given.files["1/m"], [1][..]);
    assert_eq!((calls[1].0.as_str(), calls[1].2), ("m", true));

    let status = client.repository_model_load(load("nope")).await.expect_err("unknown");
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "failed to load 'nope', failed to poll from model repository");
    let request = RepositoryModelLoadRequest { repository_name: "here".to_owned(), ..load("m") };
    assert_eq!(client.repository_model_load(request).await.expect_err("one").code(), Code::Unimplemented);
}

#[tokio::test]
async fn what_is_missing_says_so() {
    let mut server = start().await;
    let about = SystemSharedMemoryStatusRequest::default();
    let status = server.client.system_shared_memory_status(about).await.expect_err("missing");
    assert_eq!((status.code(), status.message().contains("shared memory")), (Code::Unimplemented, true));
}

#[tokio::test]
async fn health_is_readiness() {
    let server = start().await;
    let mut client = HealthClient::new(server.channel.clone());
    let about = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "inference.GRPCInferenceService"] {
        assert_eq!(client.check(about(service)).await.expect("told").into_inner().status, 1, "{service}");
    }
    assert_eq!(client.check(about("other")).await.expect_err("unknown").code(), Code::NotFound);
    let mut watch = client.watch(about("")).await.expect("a stream").into_inner();
    assert_eq!(watch.message().await.expect("told").expect("open").status, 1);
    server.fake.ready.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(watch.message().await.expect("told").expect("open").status, 2);
    server.closing.cancel();
    assert!(watch.message().await.expect("a good end").is_none());
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse::ListServicesResponse;

    let server = start().await;
    let question = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(server.channel.clone());
    let answers = client.server_reflection_info(futures::stream::iter([question])).await.expect("a stream");
    let answer = answers.into_inner().message().await.expect("no status").expect("an answer");
    let Some(ListServicesResponse(services)) = answer.message_response else { panic!("{answer:?}") };
    let names: Vec<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
    for expected in ["inference.GRPCInferenceService", "grpc.health.v1.Health"] {
        assert!(names.contains(&expected), "{names:?}");
    }
}

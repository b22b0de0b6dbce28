//! Restricted protocols, forwarded metadata, and the log's settings.

use std::collections::BTreeMap;

use frontend::{Admission, FrontendConfig, HeaderForward, Restrictions, ServeConfig};
use inference::Parameter;
use protocol::grpc_service::log_settings_request::SettingValue;
use protocol::grpc_service::log_settings_request::setting_value::ParameterChoice as Asked;
use protocol::grpc_service::log_settings_response::setting_value::ParameterChoice as Told;
use protocol::grpc_service::{LogSettingsRequest, ServerLiveRequest, ServerMetadataRequest};
use tonic::{Code, Request};

use super::{request, start, start_with};

#[tokio::test]
async fn a_restricted_protocol_wants_its_header() {
    let rules = ["inference,health:key=secret".to_owned()];
    let grpc_restrictions = Restrictions::of_grpc(&rules).expect("valid");
    let config = FrontendConfig { grpc_restrictions, ..FrontendConfig::default() };
    let mut server = start_with(Admission::default(), config, ServeConfig::default()).await;
    let text = "This API is restricted, expecting header 'triton-grpc-protocol-key'";
    let refused = server.client.model_infer(request("identity", &[1.0])).await.expect_err("no key");
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, text));
    let stream = futures::stream::iter([request("identity", &[1.0])]);
    let refused = server.client.model_stream_infer(stream).await.expect_err("no key");
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, text));
    let refused = server.client.server_live(ServerLiveRequest {}).await.expect_err("no key");
    assert_eq!(refused.code(), Code::Unavailable);
    let health = tonic_health::pb::HealthCheckRequest::default();
    let mut client = tonic_health::pb::health_client::HealthClient::new(server.channel.clone());
    assert_eq!(client.check(health).await.expect_err("no key").message(), text);
    server.client.server_metadata(ServerMetadataRequest {}).await.expect("not restricted");
    let mut call = Request::new(request("identity", &[1.0]));
    call.metadata_mut().insert("triton-grpc-protocol-key", "secret".parse().expect("ASCII"));
    server.client.model_infer(call).await.expect("an answer");
}

#[tokio::test]
async fn metadata_becomes_parameters() {
    let grpc_header_forward = Some(HeaderForward::new("X-.*").expect("valid"));
    let config = FrontendConfig { grpc_header_forward, ..FrontendConfig::default() };
    let mut server = start_with(Admission::default(), config, ServeConfig::default()).await;
    let expected = BTreeMap::from([("x-user".to_owned(), Parameter::String("u7".to_owned()))]);
    let mut call = Request::new(request("identity", &[1.0]));
    call.metadata_mut().insert("x-user", "u7".parse().expect("ASCII"));
    server.client.model_infer(call).await.expect("an answer");
    assert_eq!(server.fake.last_request().parameters, expected);
    let mut call = Request::new(futures::stream::iter([request("identity", &[2.0])]));
    call.metadata_mut().insert("x-user", "u7".parse().expect("ASCII"));
    let mut answers = server.client.model_stream_infer(call).await.expect("a stream").into_inner();
    answers.message().await.expect("no status").expect("an answer");
    assert_eq!(server.fake.last_request().parameters, expected);
}

#[tokio::test]
async fn the_logs_settings_as_triton_has_them() {
    let mut server = start().await;
    let change = |name: &str, value| LogSettingsRequest {
        settings: [(name.to_owned(), SettingValue { parameter_choice: value })].into(),
    };
    let told =
        server.client.log_settings(change("log_verbose_level", Some(Asked::Uint32Param(1)))).await.expect("told");
    let told: BTreeMap<_, _> = told
        .into_inner()
        .settings
        .into_iter()
        .map(|(name, value)| (name, value.parameter_choice.expect("a value")))
        .collect();
    let expected = [
        ("log_error", Told::BoolParam(true)),
        ("log_file", Told::StringParam(String::new())),
        ("log_format", Told::StringParam("default".to_owned())),
        ("log_info", Told::BoolParam(true)),
        ("log_verbose_level", Told::Uint32Param(1)),
        ("log_warning", Told::BoolParam(true)),
    ];
    assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value)).into());
    for (name, value, code, text) in [
        (
            "log_file",
            Some(Asked::StringParam("x".to_owned())),
            Code::Unimplemented,
            "log file location can not be updated through network protocol",
        ),
        ("log_info", Some(Asked::Uint32Param(1)), Code::InvalidArgument, "expect boolean for 'log_info'"),
        ("log_verbose_level", None, Code::InvalidArgument, "expect int32 for 'log_verbose_level'"),
        ("log_format", Some(Asked::BoolParam(true)), Code::InvalidArgument, "expect string for 'log_format'"),
    ] {
        let refused = server.client.log_settings(change(name, value)).await.expect_err(name);
        assert_eq!((refused.code(), refused.message()), (code, text));
    }
}

//! The SageMaker runtime API as SDKs call it: headers both ways, and errors by their type.

use e2e::{FolderStore, Server, Store, echo, fp32, infer, onnx_archive, prepared_model};
use http::Method;
use serde_json::{Value, json};

use crate::assert_has;

async fn serve() -> (FolderStore, Server) {
    let store = FolderStore::new();
    store.put("sub/model-1.tar.gz", &echo());
    store.put("reshape.tar.gz", &onnx_archive("reshape", &prepared_model("reshape")));
    let server = store.launch().start().await;
    (store, server)
}

/// What boto3 sends, as it was captured, for this target model.
fn captured(target: &str) -> Vec<(&'static str, String)> {
    let headers = [
        ("accept-encoding", "identity"),
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("x-amzn-sagemaker-target-variant", "v1"),
        ("x-amzn-sagemaker-custom-attributes", "c000b4f9-df62-4c85-a0bf-7c525f9104a4"),
        ("x-amzn-sagemaker-inference-id", "inf-1"),
        ("x-amzn-sagemaker-enable-explanations", "`true`"),
        ("x-amzn-sagemaker-target-container-hostname", "second"),
        ("x-amzn-sagemaker-inference-component", "ic-1"),
        ("x-amzn-sagemaker-session-id", "NEW_SESSION"),
        ("user-agent", "Boto3/1.44.5"),
        ("x-amz-date", "20261122T040823Z"),
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/sagemaker/aws4_request, Signature=8c",
        ),
        ("amz-sdk-invocation-id", "8a468e13-d8c8-4060-9e31-aa2b77dc7aef"),
        ("amz-sdk-request", "attempt=1; max=2"),
    ];
    let mut headers: Vec<_> = headers.map(|(name, value)| (name, value.to_owned())).into();
    headers.push(("x-amzn-sagemaker-target-model", target.to_owned()));
    headers
}

async fn invoke(server: &Server, target: &str, body: &str) -> e2e::Answer {
    let headers = captured(target);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    server.http().send(Method::POST, &server.url("/endpoints/my-ep/invocations"), &headers, body.to_owned()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_request_is_answered_as_the_platform_does() {
    let (_store, server) = serve().await;
    let body = infer(&[fp32("X", &[0.5])]).to_string();
    let answer = invoke(&server, "sub/model-1.tar.gz", &body).await.ok();
    assert_eq!(answer.numbers("Y"), [0.5]);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-amzn-invoked-production-variant"), Some("v1"));
    assert_eq!(answer.header("x-amzn-sagemaker-custom-attributes"), Some("c000b4f9-df62-4c85-a0bf-7c525f9104a4"));
    let id = answer.header("x-amzn-requestid").expect("a request id").to_owned();
    let other = invoke(&server, "sub/model-1.tar.gz", &body).await.ok();
    assert_ne!(other.header("x-amzn-requestid"), Some(id.as_str()), "each request has its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_type_that_sdks_look_at() {
    let (_store, server) = serve().await;
    let good = infer(&[fp32("X", &[0.5])]).to_string();
    let shape = json!({ "name": "shape", "datatype": "INT64", "shape": [1], "data": [7] });
    let unfit = infer(&[fp32("x", &[1.0, 2.0]), shape]).to_string();
    let cases: [(&str, &str, u16, &str, &[&str]); 4] = [
        ("nope.tar.gz", &good, 400, "ValidationError", &["nope.tar.gz"]),
        ("sub/model-1.tar.gz", "{\"a\":1}", 400, "ValidationError", &["inputs"]),
        ("../up", &good, 400, "ValidationError", &["../up"]),
        ("reshape.tar.gz", &unfit, 424, "ModelError", &["reshape"]),
    ];
    for (target, body, status, error_type, parts) in cases {
        let answer = invoke(&server, target, body).await;
        assert_eq!((answer.status, answer.header("x-amzn-errortype")), (status, Some(error_type)), "{answer:?}");
        let error: Value = answer.json();
        assert_has(error["Message"].as_str().expect("a message"), parts);
        assert_eq!(error["OriginalStatusCode"].is_u64(), error_type == "ModelError", "{error}");
        assert!(answer.header("x-amzn-requestid").is_some());
    }
    let url = server.url("/endpoints/my-ep/async-invocations");
    let answer = server.http().invoke(&url, "sub/model-1.tar.gz", &json!({})).await;
    assert_eq!(answer.header("x-amzn-errortype"), Some("ValidationError"), "{answer:?}");
    assert_has(&answer.text(), &["async-invocations"]);
}

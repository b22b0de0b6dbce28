//! The SageMaker runtime API and the container contract.

use serde_json::json;

use super::fake::{Reply, Running, request, start, start_with};

const INVOKE: &str = "/endpoints/my-ep/invocations";
const STREAM: &str = "/endpoints/my-ep/invocations-response-stream";

#[tokio::test]
async fn an_invocation_as_boto3_sends_it() {
    let server = start().await;
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
        ("X-Amzn-SageMaker-Target-Model", "team/x.tar.gz"),
        ("X-Amzn-SageMaker-Target-Variant", "v1"),
        ("X-Amzn-SageMaker-Custom-Attributes", "trace=9"),
        ("X-Amz-Date", "20261122T040823Z"),
    ];
    let reply = server.post(INVOKE, &headers, request(&[1.0])).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["model_name"], "team/x.tar.gz");
    assert_eq!(reply.header("x-amzn-invoked-production-variant"), "v1");
    assert_eq!(reply.header("x-amzn-sagemaker-custom-attributes"), "trace=9");
    assert_eq!(reply.header("x-panoply-cache"), "store");
    let deadline = server.fake.last_request().deadline.expect("the runtime's own bound");
    assert!(deadline > std::time::Instant::now());

    let again = server.post(INVOKE, &[("X-Amzn-SageMaker-Target-Model", "x.tar.gz")], request(&[1.0])).await;
    assert_eq!(again.header("x-amzn-invoked-production-variant"), "AllTraffic");
    assert_eq!(again.header("x-amzn-requestid").len(), 36);
    assert_ne!(again.header("x-amzn-requestid"), reply.header("x-amzn-requestid"));
}

#[tokio::test]
async fn failures_name_the_exception_that_sdks_raise() {
    let server = start().await;
    let cases = [
        ("nope", 400, "ValidationError"),
        ("bad", 400, "ValidationError"),
        ("../nope", 400, "ValidationError"),
        ("overloaded", 429, "ThrottlingException"),
        ("noroom", 503, "ServiceUnavailable"),
        ("unavailable", 503, "ServiceUnavailable"),
        ("deadline", 429, "ModelNotReadyException"),
        ("identity-deadline", 424, "ModelError"),
        ("modelbroken", 424, "ModelError"),
        ("broken", 500, "InternalFailure"),
    ];
    for (target, status, error_type) in cases {
        let reply = server.post(INVOKE, &[("X-Amzn-SageMaker-Target-Model", target)], request(&[1.0])).await;
        assert_eq!((reply.status, reply.header("x-amzn-errortype")), (status, error_type), "{target}");
        assert_eq!(reply.header("x-amzn-requestid").len(), 36, "{target}");
        let body = reply.json();
        assert!(body["Message"].as_str().expect("a message").contains(target), "{target}: {body}");
        assert_eq!(body.get("OriginalStatusCode").is_some(), status == 424, "{target}: {body}");
    }
    let broken = server.post(INVOKE, &[("X-Amzn-SageMaker-Target-Model", "modelbroken")], request(&[1.0])).await;
    let message = "no luck with 'modelbroken'";
    let expected =
        json!({"Message": message, "OriginalStatusCode": 500, "OriginalMessage": message, "LogStreamArn": ""});
    assert_eq!(broken.json(), expected);
    let reply = server.post("/endpoints/my-ep/async-invocations", &[], "{}").await;
    assert_eq!((reply.status, reply.header("x-amzn-errortype")), (400, "ValidationError"));
    assert!(reply.json()["Message"].as_str().expect("a message").contains("async-invocations"));
}

#[tokio::test]
async fn an_endpoint_name_that_is_not_ours() {
    let config = frontend::FrontendConfig { endpoint: Some("mine".to_owned()), ..Default::default() };
    let server = start_with(config, frontend::ServeConfig::default()).await;
    let reply = server.post(INVOKE, &[], request(&[1.0])).await;
    assert_eq!((reply.status, reply.header("x-amzn-errortype")), (400, "ValidationError"));
    assert_eq!(server.post("/endpoints/mine/invocations", &[], request(&[1.0])).await.status, 200);
}

async fn platform(server: &Running, method: &str, path: &str, body: &str) -> Reply {
    server.call(server.sagemaker, method, path, &[], body.to_owned()).await
}

#[tokio::test]
async fn the_container_contract() {
    let server = start().await;
    let body = request(&[1.0]);
    let load = |name: &str| format!(r#"{{"model_name":"{name}","url":"/opt/ml/models/{name}/model"}}"#);
    assert_eq!(platform(&server, "GET", "/ping", "").await.status, 200);
    assert_eq!(platform(&server, "GET", "/models", "").await.json(), json!({"models": []}));
    let steps = [
        ("POST", "/models", load("abc"), 200),
        ("POST", "/models", load("abc"), 409),
        ("POST", "/models", load("missing"), 404),
        ("POST", "/models", load("huge"), 507),
        ("POST", "/models", load("wrong"), 500),
        ("POST", "/models", "{".to_owned(), 400),
        ("POST", "/models", r#"{"model_name":"a","url":"/etc/passwd"}"#.to_owned(), 400),
        ("POST", "/models", "\u{0}".repeat(70_000), 413),
        ("GET", "/models/abc", String::new(), 200),
        ("GET", "/models/nope", String::new(), 404),
        ("PUT", "/models/abc", String::new(), 405),
        ("POST", "/models/abc/invoke", body.clone(), 200),
        ("POST", "/models/abc/invoke", "{".to_owned(), 400),
        ("POST", "/models/nope/invoke", body.clone(), 404),
        // In memory, but not registered.
        ("POST", "/models/identity/invoke", body.clone(), 404),
        ("POST", "/invocations", body.clone(), 200),
        ("GET", "/models?next_page_token=%21", String::new(), 400),
        ("DELETE", "/models/abc", String::new(), 200),
        ("DELETE", "/models/abc", String::new(), 404),
        ("POST", "/models/abc/invoke", body, 404),
    ];
    for (method, path, body, status) in steps {
        let reply = platform(&server, method, path, &body).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        assert!(status < 300 || reply.json()["error"].is_string(), "{method} {path}");
    }
    server.fake.ready.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(platform(&server, "GET", "/ping", "").await.status, 503);
}

#[tokio::test]
async fn models_are_listed_in_pages_and_invoked_by_their_own_name() {
    let server = start().await;
    for name in ["a", "b", "overloaded", "noroom"] {
        let body = format!(r#"{{"model_name":"{name}","url":"/opt/ml/models/{name}/model"}}"#);
        assert_eq!(platform(&server, "POST", "/models", &body).await.status, 200);
    }
    let one = json!({"modelName": "a", "modelUrl": "/opt/ml/models/a"});
    assert_eq!(platform(&server, "GET", "/models/a", "").await.json(), one);
    let first = platform(&server, "GET", "/models?limit=2", "").await.json();
    assert_eq!(first["models"], json!([one, {"modelName": "b", "modelUrl": "/opt/ml/models/b"}]));
    let token = first["next_page_token"].as_str().expect("more");
    let second = platform(&server, "GET", &format!("/models?limit=2&next_page_token={token}"), "").await.json();
    assert_eq!(second["models"].as_array().expect("a list").len(), 2);
    assert_eq!(second.get("next_page_token"), None);

    let headers = [("X-Amzn-SageMaker-Target-Model", "other.tar.gz")];
    let reply = server.call(server.sagemaker, "POST", "/models/a/invoke", &headers, request(&[1.0])).await;
    assert_eq!(reply.json()["model_name"], "a");
    assert_eq!(server.fake.last_request().model, inference::ModelKey::of_model("a"));
    // The same error is 503 on the HTTP port.
    assert_eq!(platform(&server, "POST", "/models/noroom/invoke", &request(&[1.0])).await.status, 507);
}

#[tokio::test]
async fn a_name_that_is_not_utf_8_and_a_panic_are_told_in_each_apis_own_shape() {
    let server = start().await;
    let cases = [("POST", "/models/%ff/invoke"), ("GET", "/models/%ff"), ("DELETE", "/models/%ff")];
    for (method, path) in cases {
        let reply = platform(&server, method, path, "{}").await;
        assert_eq!(reply.status, 400, "{method} {path}");
        assert!(reply.json()["error"].as_str().expect("an error").contains("not UTF-8"), "{}", reply.text());
    }
    let reply = server.post("/endpoints/%ff/invocations", &[], "{}").await;
    assert_eq!((reply.status, reply.header("x-amzn-errortype")), (400, "ValidationError"));
    assert!(reply.json()["Message"].as_str().expect("a message").contains("not UTF-8"));

    for operation in ["invocations", "invocations-response-stream"] {
        let path = format!("/endpoints/my-ep/{operation}");
        let reply = server.post(&path, &[("X-Amzn-SageMaker-Target-Model", "panic")], request(&[1.0])).await;
        assert_eq!((reply.status, reply.header("x-amzn-errortype")), (500, "InternalFailure"), "{operation}");
        assert!(reply.json()["Message"].as_str().expect("a message").contains("panicked"));
        assert_eq!(reply.header("x-amzn-requestid").len(), 36, "{operation}");
    }
}

#[tokio::test]
async fn a_response_stream_has_a_part_for_each_response_and_tells_what_breaks_it_off() {
    let server = start().await;
    let ask = |then: &str| {
        let mut body: serde_json::Value = serde_json::from_str(&request(&[2.0])).expect("JSON");
        if !then.is_empty() {
            body["parameters"] = json!({ "then": then });
        }
        server.post(STREAM, &[("X-Amzn-SageMaker-Target-Model", "repeat")], body.to_string())
    };
    for (then, end) in [("", None), ("fail", Some("no luck with 'repeat'")), ("panic", Some("handler panicked"))] {
        let reply = ask(then).await;
        assert_eq!((reply.status, reply.header("x-amzn-sagemaker-content-type")), (200, "application/jsonlines"));
        let text = reply.text();
        assert_eq!(text.matches("PayloadPart").count(), 2, "{then}: {text}");
        assert_eq!(text.contains("InternalStreamFailure"), end.is_some(), "{then}: {text}");
        assert!(text.contains(end.unwrap_or_default()), "{then}: {text}");
    }
}

#[tokio::test]
async fn a_binary_part_is_sent_as_it_lies_and_guarded_until_then() {
    let server = start().await;
    let headers = [("X-Amzn-SageMaker-Target-Model", "cold.tar.gz"), ("Inference-Header-Content-Length", "0")];
    let data: Vec<u8> = (0..3 << 20).map(|byte| byte as u8).collect();
    let reply = server.post(STREAM, &headers, data.clone()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-panoply-cache"), "store", "reading the request has loaded the model");
    assert!(reply.header("server-timing").contains("download;dur=12"), "{:?}", reply.headers);
    assert!(reply.header("x-amzn-sagemaker-content-type").contains("json-header-size="), "{:?}", reply.headers);
    assert!(reply.body.windows(data.len()).any(|window| window == data), "{} bytes", reply.body.len());
    super::fake::until(|| server.fake.unwritten() == 0).await;
}

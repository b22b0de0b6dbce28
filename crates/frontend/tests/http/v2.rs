//! KServe v2, as Triton's clients know it: the exchanges were captured from Triton.

use serde_json::json;

use super::fake::{request, start, start_with};

const SIXTEEN: &str = r#"{"id":"42","inputs":[{"name":"INPUT0","shape":[1,16],"datatype":"FP32","data":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}]}"#;

#[tokio::test]
async fn an_inference_answers_byte_for_byte_as_triton() {
    let server = start().await;
    for content_type in ["application/json", "application/octet-stream", "text/plain"] {
        let reply = server.post("/v2/models/identity/infer", &[("content-type", content_type)], SIXTEEN).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), "application/json");
        assert_eq!(reply.header("content-length"), "199");
        let expected = r#"{"id":"42","model_name":"identity","model_version":"1","outputs":[{"name":"OUTPUT0","datatype":"FP32","shape":[1,16],"data":[1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0,9.0,10.0,11.0,12.0,13.0,14.0,15.0,16.0]}]}"#;
        assert_eq!(reply.text(), expected);
        assert_eq!(reply.header("x-panoply-cache"), "");
    }
}

#[tokio::test]
async fn statuses_and_texts() {
    let server = start().await;
    let body = request(&[1.0]);
    let infer = |model: &str| format!("/v2/models/{model}/infer");
    let cases: [(&str, &str, &str, u16, &str); 25] = [
        ("GET", "/v2/health/live", "", 200, ""),
        ("GET", "/v2/health/ready", "", 200, ""),
        ("GET", "/v2/models/identity/ready", "", 200, ""),
        ("GET", "/v2/models/identity/versions/1/ready", "", 200, ""),
        ("GET", "/v2/models/nope/ready", "", 400, r#"{"error":"Model version not ready"}"#),
        ("GET", "/v2/models/identity/versions/9/ready", "", 400, r#"{"error":"Model version not ready"}"#),
        ("GET", "/v2/models/identity/versions/x/ready", "", 400, "failed to get model version"),
        ("GET", "/v2/models/nope", "", 404, r#"{"error":"Request for unknown model: 'nope' is not found"}"#),
        ("GET", "/v2/models/nope/config", "", 404, "Request for unknown model: 'nope' is not found"),
        ("GET", "/v2/models/%FF", "", 400, "{\"error\":\"the model's name in the path is not UTF-8"),
        (
            "GET",
            "/v2/systemsharedmemory/region/%FF/status",
            "",
            400,
            "{\"error\":\"the region's name in the path is not UTF-8",
        ),
        ("POST", "/v2/systemsharedmemory/region/%FF/register", "", 400, "the region's name in the path is not UTF-8"),
        ("POST", "/v2/cudasharedmemory/region/%FF/register", "", 400, "the region's name in the path is not UTF-8"),
        ("GET", "/nope", "", 404, r#"{"error":"Not Found"}"#),
        ("GET", "/v2/models/identity/infer", "", 405, r#"{"error":"Method Not Allowed"}"#),
        ("POST", &infer("nope"), &body, 404, r#"{"error":"Request for unknown model: 'nope' is not found"}"#),
        ("POST", &infer("bad"), &body, 400, "no luck"),
        ("POST", &infer("overloaded"), &body, 503, "no luck"),
        ("POST", &infer("noroom"), &body, 503, "no luck"),
        ("POST", &infer("deadline"), &body, 504, "no luck"),
        ("POST", &infer("unsupported"), &body, 501, "no luck"),
        ("POST", &infer("broken"), &body, 500, "no luck"),
        ("POST", &infer("identity"), "{bad", 400, "expected a member's name"),
        ("POST", &infer("identity"), "{}", 400, "unable to parse 'inputs'"),
        ("POST", "/v2/repository/index", "{bad", 400, "the index request's body"),
    ];
    for (method, path, body, status, text) in cases {
        let reply = server.call(server.http, method, path, &[], body.to_owned()).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        assert!(reply.text().contains(text), "{method} {path}: {}", reply.text());
        assert_eq!(reply.status == 503, !reply.header("retry-after").is_empty(), "{method} {path}");
        assert!(text.is_empty() || reply.header("content-type") == "application/json", "{method} {path}");
    }
    server.fake.ready.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(server.get("/v2/health/ready").await.status, 400);
    assert_eq!(server.get("/v2/health/live").await.status, 200);
}

#[tokio::test]
async fn metadata_configuration_and_index() {
    let server = start().await;
    let metadata = server.get("/v2").await.json();
    assert_eq!(metadata["name"], "panoply");
    assert!(metadata["extensions"].as_array().expect("a list").contains(&json!("binary_tensor_data")));

    for (path, name) in [
        ("identity", "identity"),
        ("identity/versions/1", "identity"),
        ("team%2Fx.tar.gz", "team/x.tar.gz"),
        ("team/x.tar.gz", "team/x.tar.gz"),
        ("team/x.tar.gz/versions/1", "team/x.tar.gz"),
    ] {
        let expected = json!({
            "name": name, "versions": ["1"], "platform": "identity",
            "inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [-1, -1]}],
            "outputs": [{"name": "OUTPUT0", "datatype": "FP32", "shape": [-1, -1]}],
        });
        assert_eq!(server.get(&format!("/v2/models/{path}")).await.json(), expected);
    }
    let config = server.get("/v2/models/identity/config").await.json();
    assert_eq!((&config["name"], &config["max_batch_size"]), (&json!("identity"), &json!(8)));

    let all = json!([
        {"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "no such file"},
        {"name": "cached"},
        {"name": "identity", "version": "1", "state": "READY"},
        {"name": "on-gpus", "version": "3", "state": "READY", "gpus": [0, 2]},
    ]);
    assert_eq!(server.post("/v2/repository/index", &[], "").await.json(), all);
    assert_eq!(server.post("/v2/repository/index", &[], "{}").await.json(), all);
    assert_eq!(server.post("/v2/repository/index", &[], r#"{"ready":true}"#).await.json(), json!([all[2], all[3]]));
}

#[tokio::test]
async fn target_models_by_header_by_name_and_with_a_model_inside() {
    let server = start().await;
    let header = [("X-Amzn-SageMaker-Target-Model", "team/x.tar.gz")];
    // (path, headers, target, model, model_name in the answer)
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<&'a str>, Option<&'a str>, &'a str);
    let cases: [Case<'_>; 5] = [
        ("/invocations", &header, Some("team/x.tar.gz"), None, "team/x.tar.gz"),
        ("/invocations", &[], None, None, "identity"),
        ("/v2/models/inner/infer", &header, Some("team/x.tar.gz"), Some("inner"), "inner"),
        ("/v2/models/team%2Fx.tar.gz/infer", &[], None, Some("team/x.tar.gz"), "team/x.tar.gz"),
        ("/v2/models/identity/versions/1/infer", &[], None, Some("identity"), "identity"),
    ];
    for (path, headers, target, model, name) in cases {
        let reply = server.post(path, headers, request(&[1.5])).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert_eq!(reply.json()["model_name"], name, "{path}");
        let key = server.fake.last_request().model;
        assert_eq!(key.target.as_ref().map(|target| target.as_str()), target, "{path}");
        assert_eq!(key.model.as_deref(), model, "{path}");
        assert_eq!(key.version, path.contains("versions").then_some(1), "{path}");
        if name.ends_with(".tar.gz") {
            assert_eq!(reply.header("x-panoply-cache"), "store");
            assert_eq!(reply.header("x-panoply-version"), "\"etag-1\"");
            assert_eq!(reply.header("server-timing"), "download;dur=12.000, unpack;dur=3.000, load;dur=40.000");
        }
    }
    let climbing = [("X-Amzn-SageMaker-Target-Model", "../x.tar.gz")];
    let reply = server.post("/invocations", &climbing, request(&[1.0])).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("path segment"), "{}", reply.text());
}

#[tokio::test]
async fn bounds_are_named() {
    let config = frontend::FrontendConfig { max_request_size: 2000, max_response_size: 300, ..Default::default() };
    let server = start_with(config, frontend::ServeConfig::default()).await;
    let reply = server.post("/v2/models/identity/infer", &[], request(&[1.25; 600])).await;
    assert_eq!(reply.status, 413);
    assert!(reply.text().contains("2000 bytes that --max-request-size allows"), "{}", reply.text());
    let reply = server.post("/v2/models/identity/infer", &[], request(&[1.25; 100])).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("300 bytes that --max-response-size allows"), "{}", reply.text());
}

#[tokio::test]
async fn parameters_reach_the_models_a_timeout_among_them() {
    let server = start().await;
    let body = request(&[1.0]).replacen('{', r#"{"parameters":{"timeout":5000000,"temperature":0.5},"#, 1);
    assert_eq!(server.post("/v2/models/identity/infer", &[], body).await.status, 200);
    let seen = server.fake.last_request();
    assert_eq!(seen.parameters.get("temperature"), Some(&inference::Parameter::Double(0.5)));
    assert_eq!(seen.parameters.get("timeout"), Some(&inference::Parameter::Int64(5_000_000)));
    assert_eq!((seen.parameters.len(), seen.deadline), (2, None), "the model's queue policy decides what it means");
}

#[tokio::test]
async fn long_json_both_ways() {
    let server = start().await;
    let values: Vec<f32> = (0..200_000).map(|value| value as f32 / 7.0).collect();
    let reply = server.post("/v2/models/identity/infer", &[], request(&values)).await;
    assert_eq!(reply.status, 200);
    let request = server.fake.last_request();
    assert_eq!(request.inputs[0].tensor.to_elements::<f32>().expect("FP32").as_ref(), values);
    let written = reply.json()["outputs"][0]["data"].as_array().expect("a list").len();
    assert_eq!(written, values.len());
}

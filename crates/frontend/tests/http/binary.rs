//! Triton's binary and classification extensions over the wire.

use serde_json::json;

use super::fake::start;

const VALUES: [f32; 3] = [0.25, 0.5, 0.125];
const SAGEMAKER_BINARY: &str = "application/vnd.sagemaker-triton.binary+json";

fn bytes() -> Vec<u8> {
    VALUES.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A request with a binary input, and the length of its JSON.
fn binary_request(more: &str) -> (Vec<u8>, usize) {
    let json = format!(
        r#"{{"inputs":[{{"name":"INPUT0","shape":[1,3],"datatype":"FP32","parameters":{{"binary_data_size":12}}}}]{more}}}"#
    );
    ([json.as_bytes(), &bytes()].concat(), json.len())
}

#[tokio::test]
async fn binary_both_ways_as_tritons_client_does_it() {
    let server = start().await;
    let (body, length) = binary_request(r#","outputs":[{"name":"OUTPUT0","parameters":{"binary_data":true}}]"#);
    let length = length.to_string();
    let reply = server.post("/v2/models/identity/infer", &[("Inference-Header-Content-Length", &length)], body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    let json_length: usize = reply.header("inference-header-content-length").parse().expect("a number");
    let head: serde_json::Value = serde_json::from_slice(&reply.body[..json_length]).expect("JSON");
    let output =
        json!({"name": "OUTPUT0", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}});
    assert_eq!(head["outputs"], json!([output]));
    assert_eq!(reply.body[json_length..], bytes());
}

#[tokio::test]
async fn a_large_binary_request_of_many_parts() {
    let server = start().await;
    let values: Vec<u8> = (0..600_000u32).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let json = format!(
        r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{{"name":"INPUT0","shape":[1,600000],"datatype":"FP32","parameters":{{"binary_data_size":{}}}}}]}}"#,
        values.len()
    );
    let length = json.len().to_string();
    let body = [json.as_bytes(), &values].concat();
    let reply = server.post("/v2/models/identity/infer", &[("Inference-Header-Content-Length", &length)], body).await;
    let json_length: usize = reply.header("inference-header-content-length").parse().expect("a number");
    assert_eq!(reply.body[json_length..], values);
    let tensor = server.fake.last_request().inputs[0].tensor.clone();
    assert_eq!(tensor.data().as_ptr().addr() % 64, 0, "gathered so that the tensor is aligned");
}

#[tokio::test]
async fn the_content_type_that_sagemaker_lets_through() {
    let server = start().await;
    let (body, length) = binary_request(r#","parameters":{"binary_data_output":true}"#);
    let content_type = format!("{SAGEMAKER_BINARY};json-header-size={length}");
    for (address, path) in [(server.http, "/endpoints/e/invocations"), (server.sagemaker, "/invocations")] {
        let headers = [("content-type", content_type.as_str()), ("X-Amzn-SageMaker-Target-Model", "x.tar.gz")];
        let reply = server.call(address, "POST", path, &headers, body.clone()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        let prefix = format!("{SAGEMAKER_BINARY};json-header-size=");
        let size: usize =
            reply.header("content-type").strip_prefix(&prefix).expect("announced").parse().expect("a number");
        assert_eq!(reply.body[size..], bytes());
    }
    // `Accept` alone asks for binary outputs.
    let headers = [("accept", SAGEMAKER_BINARY)];
    let reply = server.post("/invocations", &headers, super::fake::request(&VALUES)).await;
    assert!(reply.header("content-type").starts_with(SAGEMAKER_BINARY), "{reply:?}");
    assert!(reply.body.ends_with(&bytes()));
}

#[tokio::test]
async fn a_raw_body() {
    let server = start().await;
    let headers = [("Inference-Header-Content-Length", "0"), ("content-type", "application/octet-stream")];
    let reply = server.post("/v2/models/identity/infer", &headers, bytes()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(server.fake.last_request().inputs[0].tensor.shape().to_vec(), [1, 3]);
    assert!(reply.body.ends_with(&bytes()));
    let reply = server.post("/v2/models/nope/infer", &headers, bytes()).await;
    assert_eq!(reply.status, 404);
}

#[tokio::test]
async fn classification_with_labels() {
    let server = start().await;
    let body = super::fake::request(&VALUES).replacen(
        '{',
        r#"{"outputs":[{"name":"OUTPUT0","parameters":{"classification":2}}],"#,
        1,
    );
    let reply = server.post("/v2/models/identity/infer", &[], body).await;
    let expected = json!([{
        "name": "OUTPUT0", "datatype": "BYTES", "shape": [1, 2], "data": ["0.500000:1:dog", "0.250000:0:cat"],
    }]);
    assert_eq!(reply.json()["outputs"], expected);
}

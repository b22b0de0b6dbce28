//! What is asked: the same inputs as tensors for a bare backend and as the bytes of an HTTP request.

use std::fs;

use anyhow::{Context, Result};
use bytes::Bytes;
use inference::{InferRequest, NamedTensor, Shape, Tensor};
use prost::Message;
use protocol::grpc_service::ModelInferRequest;
use protocol::grpc_service::model_infer_request::InferInputTensor;
use serde_json::json;

use crate::grpc;
use crate::http::post;

/// The sentences of the demo's request.
pub const SENTENCES: [&str; 2] = ["A man is eating food.", "Someone has a meal."];
/// How many numbers an embedding has.
pub const EMBEDDING: usize = 384;

/// The header that names an archive.
const TARGET: &str = "x-amzn-sagemaker-target-model";
/// The header that says where in a body its binary tensors begin.
const JSON_LENGTH: &str = "inference-header-content-length";

/// So many FP32 numbers for the identity model.
pub fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|index| index as f32).collect()
}

/// A request of one FP32 input, in process.
///
/// # Errors
/// Never, for a shape that fits.
pub fn identity_request(numbers: Vec<f32>) -> Result<InferRequest> {
    let shape = Shape::from([i64::try_from(numbers.len())?]);
    Ok(InferRequest {
        inputs: vec![NamedTensor::new("INPUT0", Tensor::from_vec(shape, numbers)?)],
        ..InferRequest::default()
    })
}

/// The same over HTTP, with binary tensors both ways, as `tritonclient` sends it.
pub fn identity_http(numbers: &[f32]) -> Vec<u8> {
    identity_http_to("identity.tar.gz", numbers)
}

/// The same for another archive that takes `INPUT0`.
pub fn identity_http_to(archive: &str, numbers: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let head = json!({
        "inputs": [{ "name": "INPUT0", "shape": [numbers.len()], "datatype": "FP32",
                     "parameters": { "binary_data_size": data.len() } }],
        "parameters": { "binary_data_output": true },
    });
    binary(&format!("/v2/models/{archive}/infer"), &head.to_string(), &data)
}

/// The same over HTTP as JSON, answered in JSON.
pub fn identity_json(numbers: &[f32]) -> Vec<u8> {
    let body = json!({
        "inputs": [{ "name": "INPUT0", "shape": [numbers.len()], "datatype": "FP32", "data": numbers }],
    });
    post("/v2/models/identity.tar.gz/infer", &[("content-type", "application/json")], body.to_string().as_bytes())
}

/// The same over gRPC, raw, as a message behind its prefix.
pub fn identity_grpc(numbers: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    raw_grpc("identity.tar.gz", ("INPUT0", "FP32"), vec![numbers.len() as i64], data)
}

/// The sentences in process.
///
/// # Errors
/// Never, as the shape fits.
pub fn sentences_request() -> Result<InferRequest> {
    let text = Tensor::from_strings(Shape::from([SENTENCES.len() as i64, 1]), &SENTENCES)?;
    Ok(InferRequest { inputs: vec![NamedTensor::new("TEXT", text)], ..InferRequest::default() })
}

/// The same over HTTP, as JSON, for an archive of an ensemble.
pub fn sentences_http(archive: &str) -> Vec<u8> {
    let body = json!({
        "inputs": [{ "name": "TEXT", "datatype": "BYTES", "shape": [SENTENCES.len(), 1], "data": SENTENCES }],
    });
    let headers = [("content-type", "application/json"), (TARGET, archive)];
    post("/invocations", &headers, body.to_string().as_bytes())
}

/// The same, answered in binary.
///
/// # Errors
/// Never, as the shape fits.
pub fn sentences_binary_http(archive: &str) -> Result<Vec<u8>> {
    let request = sentences_request()?;
    let text = &request.inputs[0].tensor;
    let head = json!({
        "inputs": [{ "name": "TEXT", "datatype": "BYTES", "shape": text.shape().to_vec(),
                     "parameters": { "binary_data_size": text.data().len() } }],
        "parameters": { "binary_data_output": true },
    });
    Ok(binary(&format!("/v2/models/{archive}/infer"), &head.to_string(), text.data()))
}

/// The same over gRPC, raw.
///
/// # Errors
/// Never, as the shape fits.
pub fn sentences_grpc(archive: &str) -> Result<Vec<u8>> {
    let request = sentences_request()?;
    let text = &request.inputs[0].tensor;
    Ok(raw_grpc(archive, ("TEXT", "BYTES"), text.shape().to_vec(), text.data().to_vec()))
}

fn raw_grpc(model: &str, (input, datatype): (&str, &str), shape: Vec<i64>, data: Vec<u8>) -> Vec<u8> {
    let (name, datatype) = (input.to_owned(), datatype.to_owned());
    let message = ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![InferInputTensor { name, datatype, shape, ..InferInputTensor::default() }],
        raw_input_contents: vec![data.into()],
        ..ModelInferRequest::default()
    };
    grpc::framed(&message.encode_to_vec())
}

/// One row for [`crate::dense::model`] of this width, with binary tensors both ways.
pub fn row_http(archive: &str, width: usize) -> Vec<u8> {
    let data = vec![0; width * size_of::<f32>()];
    let head = json!({
        "inputs": [{ "name": "x0", "shape": [1, width], "datatype": "FP32",
                     "parameters": { "binary_data_size": data.len() } }],
        "parameters": { "binary_data_output": true },
    });
    binary(&format!("/v2/models/{archive}/infer"), &head.to_string(), &data)
}

/// So many rows of so many tokens for MiniLM's encoder, with binary tensors both ways.
pub fn tokens_http(path: &str, rows: usize, tokens: usize) -> Vec<u8> {
    let ids = (0..rows * tokens).map(|index| 1000 + (index % 20_000) as i64);
    let (ones, zeros) = ((0..rows * tokens).map(|_| 1i64), (0..rows * tokens).map(|_| 0i64));
    let data: Vec<u8> = ids.chain(ones).chain(zeros).flat_map(i64::to_le_bytes).collect();
    let input = |name: &str| {
        json!({ "name": name, "shape": [rows, tokens], "datatype": "INT64",
                "parameters": { "binary_data_size": rows * tokens * size_of::<i64>() } })
    };
    let inputs = ["input_ids", "attention_mask", "token_type_ids"].map(input);
    let head = json!({ "inputs": inputs, "parameters": { "binary_data_output": true } });
    binary(path, &head.to_string(), &data)
}

/// So many texts of so many words, each of which is one token, for an archive of the ensemble; answered in binary.
pub fn words_http(path: &str, rows: usize, words: usize) -> Vec<u8> {
    let texts = vec![vec!["food"; words].join(" "); rows];
    let body = json!({
        "inputs": [{ "name": "TEXT", "datatype": "BYTES", "shape": [rows, 1], "data": texts }],
        "parameters": { "binary_data_output": true },
    });
    post(path, &[("content-type", "application/json")], body.to_string().as_bytes())
}

/// The photo of the demo's request, for its archive of MobileNet.
///
/// # Errors
/// When `cargo xtask setup` has not made it.
pub fn photo_http() -> Result<Vec<u8>> {
    let folder = test_util::artifacts().join("demo-requests");
    let read = |name: &str| fs::read(folder.join(name)).with_context(|| format!("no {name}: run `cargo xtask setup`"));
    let head = String::from_utf8(read("photo.json")?).context("photo.json is not text")?;
    let body = Bytes::from(read("photo.body")?);
    let pixels = body.strip_prefix(head.as_bytes()).unwrap_or(&body);
    Ok(binary("/v2/models/mobilenet.tar.gz/infer", &head, pixels))
}

fn binary(path: &str, head: &str, data: &[u8]) -> Vec<u8> {
    let length = head.len().to_string();
    let headers = [("content-type", "application/octet-stream"), (JSON_LENGTH, length.as_str())];
    post(path, &headers, &[head.as_bytes(), data].concat())
}

/// The numbers of the first output in an answer's JSON.
///
/// # Errors
/// When there are none.
pub fn data(body: &[u8]) -> Result<Vec<f64>> {
    let answer: serde_json::Value = serde_json::from_slice(body).context("the answer is not JSON")?;
    let data = answer["outputs"][0]["data"].as_array().context("the answer has no data")?;
    data.iter().map(|number| number.as_f64().context("the data holds something else than numbers")).collect()
}

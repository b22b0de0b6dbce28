//! Inference requests of KServe v2, as JSON and with binary tensors.

use serde_json::{Value, json};

/// An FP32 input of one dimension.
pub fn fp32(name: &str, data: &[f32]) -> Value {
    json!({ "name": name, "datatype": "FP32", "shape": [data.len()], "data": data })
}

/// A BYTES input of shape [n, 1].
pub fn texts(name: &str, texts: &[&str]) -> Value {
    json!({ "name": name, "datatype": "BYTES", "shape": [texts.len(), 1], "data": texts })
}

/// A request with these inputs.
pub fn infer(inputs: &[Value]) -> Value {
    json!({ "inputs": inputs })
}

/// BYTES elements as binary tensors have them: each after its length.
pub fn bytes_tensor(elements: &[&[u8]]) -> Vec<u8> {
    elements.iter().flat_map(|element| [&(element.len() as u32).to_le_bytes()[..], element].concat()).collect()
}

/// A body of JSON and the tensors' bytes, and how long its JSON is.
pub fn binary_request(json: &Value, tensors: &[&[u8]]) -> (Vec<u8>, usize) {
    let text = json.to_string();
    ([text.as_bytes(), &tensors.concat()].concat(), text.len())
}

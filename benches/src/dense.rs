//! An ONNX model of dense layers, made here: its weights have the size that is asked for.

use prost::Message;

const FLOAT: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opsets: Vec<Opset>,
}

#[derive(Clone, PartialEq, Message)]
struct Opset {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializers: Vec<Initializer>,
    #[prost(message, repeated, tag = "11")]
    inputs: Vec<Port>,
    #[prost(message, repeated, tag = "12")]
    outputs: Vec<Port>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "4")]
    operator: String,
}

#[derive(Clone, PartialEq, Message)]
struct Initializer {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Port {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Message)]
struct Kind {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorKind>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorKind {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Dims>,
}

#[derive(Clone, PartialEq, Message)]
struct Dims {
    #[prost(message, repeated, tag = "1")]
    dims: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
}

/// So many layers of MatMul and Relu over `x0`, FP32 `[batch, width]`, as a model file. Each layer's weights take four bytes
/// times the square of `width`.
pub fn model(layers: usize, width: usize) -> Vec<u8> {
    let (mut nodes, mut initializers) = (Vec::new(), Vec::new());
    let node = |operator: &str, inputs: Vec<String>, output: String| Node {
        inputs,
        outputs: vec![output],
        operator: operator.to_owned(),
    };
    for layer in 0..layers {
        let (from, product, weights) = (format!("x{layer}"), format!("product{layer}"), format!("weights{layer}"));
        nodes.push(node("MatMul", vec![from, weights.clone()], product.clone()));
        nodes.push(node("Relu", vec![product], format!("x{}", layer + 1)));
        initializers.push(Initializer {
            dims: vec![width as i64, width as i64],
            data_type: FLOAT,
            name: weights,
            // No two layers alike, or ONNX Runtime keeps one for all.
            raw_data: (0..width * width).flat_map(|at| ((at % (17 + layer)) as f32 / 1e4).to_le_bytes()).collect(),
        });
    }
    let graph = Graph {
        nodes,
        name: "dense".to_owned(),
        initializers,
        inputs: vec![port("x0", width)],
        outputs: vec![port(&format!("x{layers}"), width)],
    };
    let opset = Opset { domain: String::new(), version: 21 };
    Model { ir_version: 10, graph: Some(graph), opsets: vec![opset] }.encode_to_vec()
}

fn port(name: &str, width: usize) -> Port {
    let dims = vec![Dim { value: None, name: Some("batch".to_owned()) }, Dim { value: Some(width as i64), name: None }];
    let tensor = TensorKind { element: FLOAT, shape: Some(Dims { dims }) };
    Port { name: name.to_owned(), kind: Some(Kind { tensor: Some(tensor) }) }
}

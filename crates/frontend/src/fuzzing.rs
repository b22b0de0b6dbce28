//! What fuzzing calls: the readers of bodies and messages, each alone. Not for other use.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use inference::{DataType, InputSpec, ModelSpec, Shape};

use crate::FrontendConfig;
use crate::codec::{self, Layout};

/// The depth that servers allow.
fn depth() -> usize {
    FrontendConfig::default().max_json_depth
}

/// A body of KServe v2 that is all JSON; whether it was accepted.
pub fn json_body(bytes: &[u8]) -> bool {
    codec::parse(&Bytes::copy_from_slice(bytes), Layout::Json, depth()).is_ok()
}

/// A body of JSON and tensors, behind two bytes (little-endian) of the JSON's length; whether it was accepted.
pub fn mixed_body(bytes: &[u8]) -> bool {
    let Some((length, body)) = bytes.split_first_chunk::<2>() else { return false };
    let length = usize::from(u16::from_le_bytes(*length));
    codec::parse(&Bytes::copy_from_slice(body), Layout::Binary(length), depth()).is_ok()
}

/// A body that is the data of the one input, for inputs of every type; whether any was accepted.
pub fn raw_body(bytes: &[u8]) -> bool {
    let body = Bytes::copy_from_slice(bytes);
    let shapes = [Shape::from([-1]), Shape::from([-1, -1]), Shape::from([-1, 3]), Shape::from([0, -1])];
    let accepted =
        |datatype: &DataType, shape: &Shape| codec::raw_input(&"x".into(), *datatype, shape, body.clone()).is_ok();
    DataType::ALL
        .iter()
        .flat_map(|datatype| shapes.iter().map(move |shape| (datatype, shape)))
        .any(|(d, s)| accepted(d, s))
}

/// A body of Triton's `generate` extension; whether it was accepted.
pub fn generate_body(bytes: &[u8]) -> bool {
    let input = |name: &str, datatype, dims: &[i64]| InputSpec {
        name: name.into(),
        datatype,
        dims: Shape::new(dims),
        reshape: None,
        optional: true,
    };
    let inputs = vec![
        input("text", DataType::Bytes, &[1]),
        input("numbers", DataType::Fp32, &[-1, 2]),
        input("flag", DataType::Bool, &[1]),
    ];
    let spec = ModelSpec { max_batch_size: 8, inputs, ..ModelSpec::new("m", "identity") };
    codec::parse_generate(bytes, &spec, depth()).is_ok()
}

/// The body of a `ModelStreamInfer` call, behind a byte that says in pieces of which size it arrives; whether all of its messages
/// were accepted.
pub fn grpc_stream(bytes: &[u8]) -> bool {
    let Some((size, body)) = bytes.split_first() else { return false };
    let pieces: Vec<_> = body.chunks(usize::from(*size).max(1)).map(Bytes::copy_from_slice).collect();
    let pieces = futures::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
    // For the time limits; nothing here waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("no resources are needed").block_on(crate::grpc::read_messages(Body::from_stream(pieces)))
}

/// A `ModelInferRequest`; whether it was accepted.
pub fn grpc_message(bytes: &[u8]) -> bool {
    crate::grpc::read_message(Bytes::copy_from_slice(bytes))
}

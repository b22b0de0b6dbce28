//! What fuzzing calls: the readers of bodies, heads and messages, each alone. Not for other use.

use std::convert::Infallible;

use ::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::body::Body;
use bytes::Bytes;
use inference::{DataType, InputSpec, ModelSpec, Shape};

use crate::codec::{self, Announce, Framing, Layout};
use crate::compression::{Encoding, Inflater};
use crate::http::slashes::{self, Names};
use crate::{Admission, FrontendConfig, encoding, http, sagemaker, trace};

/// The largest body that compressed ones may hold here.
const INFLATED: u64 = 1 << 20;

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

/// A compressed body behind a byte that says how; whether it was accepted.
pub fn compressed_body(bytes: &[u8]) -> bool {
    let Some((how, body)) = bytes.split_first() else { return false };
    let encoding = if how % 2 == 0 { Encoding::Gzip } else { Encoding::Deflate };
    let (mut inflater, mut share) = (Inflater::new(encoding, INFLATED, None), Admission::default().body());
    let (first, second) = body.split_at(body.len() / 2);
    let taken = [first, second].into_iter().try_for_each(|part| inflater.add(part, &mut share));
    taken.is_ok() && inflater.whole().is_ok()
}

/// The body of a load or an unload by name; whether either was accepted.
pub fn load_body(bytes: &[u8]) -> bool {
    let load = codec::parse_load(bytes, depth(), &mut Admission::default().body());
    load.is_ok() | codec::parse_unload(bytes, depth()).is_ok()
}

/// The body of a change of the trace's or the log's settings; whether either was accepted.
pub fn settings_body(bytes: &[u8]) -> bool {
    http::parse_trace_edit(bytes).is_ok() | http::parse_log_change(bytes).is_ok()
}

/// The body of a registration of a model or of shared memory, or the query of a page of models; whether any was accepted.
pub fn registration(bytes: &[u8]) -> bool {
    let page = std::str::from_utf8(bytes).is_ok_and(|query| sagemaker::registered_page(&[], query).is_ok());
    let model = sagemaker::parse_registration(bytes, &FrontendConfig::default().registered_roots);
    page | model.is_ok() | http::parse_system_region(bytes).is_ok() | http::parse_cuda_region(bytes).is_ok()
}

/// The value of any header that is read; whether any was accepted for what it says.
pub fn header(bytes: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return false };
    let names = ["traceparent", "tracestate", "content-type", "content-encoding", "accept", "accept-encoding"];
    let headers: HeaderMap = names.map(|name| (HeaderName::from_static(name), value.clone())).into_iter().collect();
    let framing = Framing::from_headers(&headers, Announce::Header);
    let is_framed = framing.is_ok_and(|framing| framing.layout != Layout::Json);
    trace::of_caller(&headers).is_some()
        | is_framed
        | encoding::of_answer(&headers).is_some()
        | matches!(encoding::of_request(&headers), Ok(Some(_)))
}

/// A path in which a model's name may hold slashes; whether it was read as such.
///
/// # Panics
/// Where what it was read as would be read again.
pub fn path(bytes: &[u8]) -> bool {
    let Ok(uri) = Uri::try_from(bytes) else { return false };
    let tails = ["", "/infer", "/trace/setting", "/versions/{version}", "/versions/{version}/infer"];
    let names = [
        Names { prefix: "/v2/models/", tails: tails.map(str::to_owned).into() },
        Names { prefix: "/v2/repository/models/", tails: vec!["/load".to_owned()] },
    ];
    let Some(escaped) = slashes::escaped(&uri, &names) else { return false };
    assert!(slashes::escaped(&escaped, &names).is_none(), "{escaped} is no route yet");
    true
}

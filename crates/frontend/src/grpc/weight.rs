//! What a `ModelInferRequest` takes in memory once it is decoded: two bytes on the wire may become hundreds, so that a message
//! is weighed before. Pure.

use inference::{Error, Result};
use prost::encoding::{WireType, decode_key, decode_varint};

/// The most inputs, outputs, raw tensors and parameters of one request together: more than models have.
const MOST_PARTS: usize = 16_384;
/// What one of them takes at most, and its place in a vector that grows by doubling.
const PART_BYTES: usize = 1024;
/// Lists of numbers grow by doubling too.
const GROWTH: usize = 2;

/// Bytes that the decoded message takes beyond those of its raw tensors, which stay where they are; rather too many.
///
/// # Errors
/// InvalidArgument when the bytes are no message, or have more parts than a request may have.
pub(super) fn of_request(message: &[u8]) -> Result<usize> {
    let mut weight = Weight::default();
    each_field(message, |field, value| match field {
        5 => weight.part().and_then(|()| weight.input(value.bytes())),
        6 => weight.part().and_then(|()| weight.output(value.bytes())),
        7 => weight.part(),
        _ => weight.text(value),
    })?;
    Ok(weight.bytes)
}

#[derive(Default)]
struct Weight {
    parts: usize,
    bytes: usize,
}

impl Weight {
    fn part(&mut self) -> Result<()> {
        self.parts += 1;
        self.bytes += PART_BYTES;
        if self.parts <= MOST_PARTS {
            return Ok(());
        }
        Err(Error::invalid_argument(format!(
            "the request has more than the {MOST_PARTS} inputs, outputs, tensors and parameters that one request may have"
        )))
    }

    /// A string or a parameter.
    fn text(&mut self, value: Value<'_>) -> Result<()> {
        self.bytes += value.bytes().len();
        self.part()
    }

    /// `InferInputTensor`.
    fn input(&mut self, input: &[u8]) -> Result<()> {
        each_field(input, |field, value| match field {
            3 => {
                self.bytes += value.elements(1) * size_of::<i64>() * GROWTH;
                Ok(())
            }
            5 => self.contents(value.bytes()),
            _ => self.text(value),
        })
    }

    /// `InferRequestedOutputTensor`.
    fn output(&mut self, output: &[u8]) -> Result<()> {
        each_field(output, |_, value| self.text(value))
    }

    /// `InferTensorContents`.
    fn contents(&mut self, contents: &[u8]) -> Result<()> {
        each_field(contents, |field, value| {
            self.bytes += GROWTH
                * match field {
                    1 => value.elements(1),
                    2 | 4 => value.elements(1) * size_of::<i32>(),
                    3 | 5 => value.elements(1) * size_of::<i64>(),
                    6 => value.elements(size_of::<f32>()) * size_of::<f32>(),
                    7 => value.elements(size_of::<f64>()) * size_of::<f64>(),
                    _ => size_of::<bytes::Bytes>() + value.bytes().len(),
                };
            Ok(())
        })
    }
}

/// A field's value: one number, or bytes that may be a list of numbers.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number,
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Value::Number => &[],
            Value::Bytes(bytes) => bytes,
        }
    }

    /// How many numbers there are; `size` is that of a number on the wire, 1 for those of variable length.
    fn elements(self, size: usize) -> usize {
        match self {
            Value::Number => 1,
            Value::Bytes(bytes) if size == 1 => bytes.iter().filter(|byte| **byte < 0x80).count(),
            Value::Bytes(bytes) => bytes.len() / size,
        }
    }
}

fn each_field<'a>(mut message: &'a [u8], mut see: impl FnMut(u32, Value<'a>) -> Result<()>) -> Result<()> {
    while !message.is_empty() {
        let (field, value) = next_field(&mut message).ok_or_else(|| {
            Error::invalid_argument("the request message cannot be read: it is not a whole protobuf message")
        })?;
        see(field, value)?;
    }
    Ok(())
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    let (field, wire_type) = decode_key(rest).ok()?;
    let length = match wire_type {
        WireType::Varint => decode_varint(rest).map(|_| 0).ok()?,
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => usize::try_from(decode_varint(rest).ok()?).ok()?,
        // proto3 has none.
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    let value = if wire_type == WireType::LengthDelimited { Value::Bytes(bytes) } else { Value::Number };
    Some((field, value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection;
    use proptest::prelude::*;
    use prost::Message;
    use protocol::grpc_service::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    use protocol::grpc_service::{InferParameter, InferTensorContents, ModelInferRequest};

    use super::*;

    fn with(contents: InferTensorContents) -> ModelInferRequest {
        let input = InferInputTensor { name: "x".to_owned(), contents: Some(contents), ..InferInputTensor::default() };
        ModelInferRequest { inputs: vec![input], ..ModelInferRequest::default() }
    }

    fn weigh(message: &ModelInferRequest) -> usize {
        of_request(&message.encode_to_vec()).expect("a request")
    }

    #[test]
    fn raw_tensors_weigh_nothing_and_lists_what_they_become() {
        let mut raw = ModelInferRequest { raw_input_contents: vec![vec![0; 1 << 20].into()], ..Default::default() };
        assert!(weigh(&raw) < 4096);
        raw.model_name = "m".repeat(10_000);
        assert!(weigh(&raw) > 10_000);
        let count = 100_000;
        let lists = [
            (InferTensorContents { int64_contents: vec![1; count], ..Default::default() }, 8),
            (InferTensorContents { uint_contents: vec![300; count], ..Default::default() }, 4),
            (InferTensorContents { bool_contents: vec![true; count], ..Default::default() }, 1),
            (InferTensorContents { fp64_contents: vec![1.0; count], ..Default::default() }, 8),
            (InferTensorContents { bytes_contents: vec![bytes::Bytes::new(); count], ..Default::default() }, 32),
        ];
        for (contents, size) in lists {
            let weight = weigh(&with(contents));
            assert!((size * count..3 * size * count + 10_000).contains(&weight), "{weight} for {size}");
        }
    }

    #[test]
    fn too_many_parts_are_refused_before_they_are_made() {
        let inputs = vec![InferInputTensor::default(); MOST_PARTS + 1];
        let bytes = ModelInferRequest { inputs, ..Default::default() }.encode_to_vec();
        assert!(bytes.len() < 40_000);
        let error = of_request(&bytes).expect_err("too many");
        assert!(error.message().contains("more than the 16384 inputs"), "{error}");
    }

    /// What a message takes in memory beyond its raw tensors, at the least.
    fn held(message: &ModelInferRequest) -> usize {
        let contents = |of: &InferTensorContents| {
            let of_four = of.int_contents.len() + of.uint_contents.len() + of.fp32_contents.len();
            let of_eight = of.int64_contents.len() + of.uint64_contents.len() + of.fp64_contents.len();
            let texts = of.bytes_contents.len() * size_of::<bytes::Bytes>();
            of.bool_contents.len() + 4 * of_four + 8 * of_eight + texts
        };
        let parameters = |of: &BTreeMap<String, InferParameter>| of.keys().map(|name| name.len() + 64).sum::<usize>();
        let input = |of: &InferInputTensor| {
            let texts = of.name.len() + of.datatype.len();
            let lists = 8 * of.shape.len() + of.contents.as_ref().map_or(0, contents);
            size_of::<InferInputTensor>() + texts + lists + parameters(&of.parameters)
        };
        let output = |of: &InferRequestedOutputTensor| size_of_val(of) + of.name.len() + parameters(&of.parameters);
        let texts = message.model_name.len() + message.model_version.len() + message.id.len();
        let raw = message.raw_input_contents.len() * size_of::<bytes::Bytes>();
        let inputs: usize = message.inputs.iter().map(input).sum();
        let outputs: usize = message.outputs.iter().map(output).sum();
        texts + raw + inputs + outputs + parameters(&message.parameters)
    }

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut field);
        [&field, bytes].concat()
    }

    /// Some of the pieces, one after the other.
    fn some(piece: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    fn text(number: u8) -> impl Strategy<Value = Vec<u8>> {
        "[a-z]{0,40}".prop_map(move |text| field(number, text.as_bytes()))
    }

    /// A list of numbers in one field, or one of them in its own.
    fn numbers(number: u8) -> impl Strategy<Value = Vec<u8>> {
        let number_of = |value: u64| {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(value, &mut bytes);
            bytes
        };
        let list = collection::vec(any::<u64>(), 0..50);
        let list =
            list.prop_map(move |values| field(number, &values.into_iter().flat_map(number_of).collect::<Vec<_>>()));
        prop_oneof![list, any::<u64>().prop_map(move |value| [vec![number << 3], number_of(value)].concat())]
    }

    /// The same for numbers of a fixed size.
    fn floats(number: u8, size: usize) -> impl Strategy<Value = Vec<u8>> {
        let wire_type = if size == 4 { 5 } else { 1 };
        let list = (0..50usize).prop_map(move |count| field(number, &vec![1; count * size]));
        prop_oneof![list, Just([vec![number << 3 | wire_type], vec![1; size]].concat())]
    }

    fn parameters(number: u8) -> impl Strategy<Value = Vec<u8>> {
        let value = (any::<u8>()).prop_map(|value| field(2, &[2 << 3, value & 0x7f]));
        (text(1), value).prop_map(move |(name, value)| field(number, &[name, value].concat()))
    }

    fn input() -> impl Strategy<Value = Vec<u8>> {
        let integers = prop_oneof![numbers(1), numbers(2), numbers(3), numbers(4), numbers(5)];
        let contents = some(prop_oneof![integers, floats(6, 4), floats(7, 8), text(8)]);
        let contents = contents.prop_map(|contents| field(5, &contents));
        some(prop_oneof![text(1), text(2), numbers(3), parameters(4), contents]).prop_map(|input| field(5, &input))
    }

    /// A request in the fields of protobuf's wire format: also ones that no encoder writes so.
    fn request() -> impl Strategy<Value = Vec<u8>> {
        let output = some(prop_oneof![text(1), parameters(2)]).prop_map(|output| field(6, &output));
        let unknown = prop_oneof![text(15), numbers(14), floats(13, 4), floats(12, 8)];
        some(prop_oneof![text(1), text(2), text(3), parameters(4), input(), output, text(7), unknown])
    }

    proptest! {
        #[test]
        fn no_request_takes_more_than_it_weighs(bytes in request()) {
            let message = ModelInferRequest::decode(&bytes[..]).expect("its pieces are whole");
            let weight = of_request(&bytes).expect("a request");
            prop_assert!(weight >= held(&message), "{} weighs {}, and {:?} takes {}", bytes.len(), weight, message, held(&message));
        }

        #[test]
        fn any_bytes_are_weighed_without_a_panic(bytes in request(), cut in 0.0..1.0f64, noise in any::<[u8; 4]>()) {
            let at = (bytes.len() as f64 * cut) as usize;
            let _ = of_request(&bytes[..at]);
            let _ = of_request(&[&bytes[..at], &noise, &bytes[at..]].concat());
        }
    }
}

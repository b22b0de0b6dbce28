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
    use proptest::prelude::*;
    use prost::Message;
    use protocol::grpc_service::model_infer_request::InferInputTensor;
    use protocol::grpc_service::{InferTensorContents, ModelInferRequest};

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

    proptest! {
        #[test]
        fn any_bytes_are_weighed_without_a_panic(bytes in any::<Vec<u8>>()) {
            if ModelInferRequest::decode(&bytes[..]).is_ok_and(|message| !message.inputs.is_empty()) {
                prop_assert!(of_request(&bytes).is_ok_and(|weight| weight >= PART_BYTES));
            }
        }
    }
}

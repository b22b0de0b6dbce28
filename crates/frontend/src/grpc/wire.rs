//! What has to be known of a message's bytes beside its fields: where its tensors lie, what it will take in memory; and an
//! answer's bytes around its tensors. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use inference::{Error, Result};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint};
use protocol::grpc_service::{ModelInferResponse, ModelStreamInferResponse};

/// Bytes in front of a message: whether it is compressed, and its length.
pub(super) const PREFIX: usize = 5;
/// `ModelInferRequest.raw_input_contents`.
const RAW_INPUTS: u32 = 7;
/// `ModelInferResponse.raw_output_contents`.
const RAW_OUTPUTS: u32 = 6;
/// `ModelStreamInferResponse.infer_response`.
const IN_STREAM: u32 = 2;
/// Parts up to this size are put together: HTTP/2 would copy them too, and a frame for each costs more.
const SMALL_PART: usize = 256;

/// What stands in front of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) compressed: bool,
    pub(super) length: u32,
}

impl Prefix {
    /// # Errors
    /// InvalidArgument for a flag that does not exist.
    pub(super) fn read(bytes: [u8; PREFIX]) -> Result<Self> {
        let [flag, length @ ..] = bytes;
        if flag > 1 {
            return Err(Error::invalid_argument(format!(
                "the request message's compression flag is {flag}; expected 0 or 1: this is not the gRPC framing"
            )));
        }
        Ok(Prefix { compressed: flag == 1, length: u32::from_be_bytes(length) })
    }

    /// In front of an answer of so many bytes.
    ///
    /// # Errors
    /// InvalidArgument when they are more than a prefix can say.
    fn of_answer(compressed: bool, length: usize) -> Result<Self> {
        let length = u32::try_from(length).map_err(|_| {
            Error::invalid_argument(format!("the answer has {length} bytes, and gRPC can carry {} at most", u32::MAX))
        })?;
        Ok(Prefix { compressed, length })
    }

    fn write(self, buffer: &mut impl BufMut) {
        buffer.put_u8(u8::from(self.compressed));
        buffer.put_u32(self.length);
    }
}

/// Where the first raw tensor of a `ModelInferRequest` begins, as far as the message's first bytes tell.
pub(super) fn tensors_at(start: &[u8]) -> Option<usize> {
    let mut rest = start;
    loop {
        let (field, wire_type) = decode_key(&mut rest).ok()?;
        let length = match wire_type {
            WireType::LengthDelimited => decode_varint(&mut rest).ok()?,
            WireType::Varint => decode_varint(&mut rest).map(|_| 0).ok()?,
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        if field == RAW_INPUTS {
            return Some(start.len() - rest.len());
        }
        rest = rest.get(usize::try_from(length).ok()?..)?;
    }
}

/// An answer as the parts that go to the socket: prefix and head, and each tensor as it lies. None of them is empty.
///
/// # Errors
/// InvalidArgument for an answer of more bytes than gRPC can frame.
pub(super) fn frame(answer: ModelInferResponse) -> Result<Vec<Bytes>> {
    lay_out(answer, |length, buffer| {
        Prefix::of_answer(false, length)?.write(buffer);
        Ok(())
    })
}

/// The same for an answer on a stream.
///
/// # Errors
/// As [`frame`].
pub(super) fn frame_of_stream(error_message: String, answer: ModelInferResponse) -> Result<Vec<Bytes>> {
    let around = ModelStreamInferResponse { error_message, infer_response: None };
    lay_out(answer, |length, buffer| {
        Prefix::of_answer(false, around.encoded_len() + field_len(length))?.write(buffer);
        around.encode_raw(buffer);
        encode_key(IN_STREAM, WireType::LengthDelimited, buffer);
        encode_varint(length as u64, buffer);
        Ok(())
    })
}

/// `begin` writes what stands in front of an answer of so many bytes.
fn lay_out(
    mut answer: ModelInferResponse,
    begin: impl FnOnce(usize, &mut BytesMut) -> Result<()>,
) -> Result<Vec<Bytes>> {
    let tensors = std::mem::take(&mut answer.raw_output_contents);
    let head = answer.encoded_len();
    let length = head + tensors.iter().map(|tensor| field_len(tensor.len())).sum::<usize>();
    let mut joined = BytesMut::with_capacity(4 * PREFIX + head + tensors.len() * (SMALL_PART + 16));
    begin(length, &mut joined)?;
    answer.encode_raw(&mut joined);
    let mut parts = Vec::with_capacity(2 * tensors.len() + 1);
    for tensor in tensors {
        encode_key(RAW_OUTPUTS, WireType::LengthDelimited, &mut joined);
        encode_varint(tensor.len() as u64, &mut joined);
        if tensor.len() <= SMALL_PART {
            joined.extend_from_slice(&tensor);
        } else {
            parts.extend([joined.split().freeze(), tensor]);
        }
    }
    if !joined.is_empty() {
        parts.push(joined.freeze());
    }
    Ok(parts)
}

/// The length of a field of so many bytes, whose number is below 16.
fn field_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// What of a framed answer is compressed.
pub(super) fn payload(mut parts: Vec<Bytes>) -> Vec<Bytes> {
    parts[0].advance(PREFIX);
    parts
}

/// An answer that was compressed, as [`frame`] does it.
///
/// # Errors
/// As [`frame`].
pub(super) fn frame_packed(packed: Bytes) -> Result<Vec<Bytes>> {
    let mut prefix = BytesMut::with_capacity(PREFIX);
    Prefix::of_answer(true, packed.len())?.write(&mut prefix);
    Ok(vec![prefix.freeze(), packed])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use protocol::grpc_service::ModelInferRequest;
    use protocol::grpc_service::model_infer_request::InferInputTensor;
    use protocol::grpc_service::model_infer_response::InferOutputTensor;

    use super::*;

    fn answer(tensors: Vec<Bytes>) -> ModelInferResponse {
        let output = InferOutputTensor { name: "y".to_owned(), ..InferOutputTensor::default() };
        ModelInferResponse {
            model_name: "m".to_owned(),
            outputs: vec![output; tensors.len()],
            raw_output_contents: tensors,
            ..ModelInferResponse::default()
        }
    }

    #[test]
    fn large_tensors_go_out_as_they_lie_and_small_ones_with_the_head() {
        let large = Bytes::from(vec![7; SMALL_PART + 1]);
        let parts = frame(answer(vec![large.clone(), Bytes::from_static(b"small")])).expect("fits");
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[1].as_ptr(), large.as_ptr());
        let parts = frame_of_stream(String::new(), answer(vec![large.clone()])).expect("fits");
        assert_eq!((parts.len(), parts[1].as_ptr()), (2, large.as_ptr()));
        assert_eq!(frame(answer(vec![Bytes::from_static(b"small"); 2])).expect("fits").len(), 1);
    }

    #[test]
    fn tensors_are_found_and_flags_are_checked() {
        let message = ModelInferRequest {
            model_name: "m".to_owned(),
            inputs: vec![InferInputTensor { name: "x".to_owned(), ..InferInputTensor::default() }],
            raw_input_contents: vec![Bytes::from_static(b"tensor")],
            ..ModelInferRequest::default()
        };
        let bytes = message.encode_to_vec();
        let at = tensors_at(&bytes[..bytes.len() - 3]).expect("its beginning is there");
        assert_eq!(&bytes[at..], b"tensor");
        assert_eq!(tensors_at(&bytes[..5]), None);
        assert_eq!(Prefix::read([1, 0, 0, 1, 2]).expect("valid"), Prefix { compressed: true, length: 258 });
        assert!(Prefix::read([b'{', 0, 0, 0, 0]).expect_err("JSON").message().contains("not the gRPC framing"));
    }

    proptest! {
        #[test]
        fn frames_are_what_prost_would_write(
            lengths in proptest::collection::vec(0usize..1000, 0..5),
            error_message in "[a-z]{0,300}",
        ) {
            let framed = |message: Vec<u8>| [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
            let message = answer(lengths.into_iter().map(|length| vec![1; length].into()).collect());
            let parts = frame(message.clone()).expect("fits");
            prop_assert!(parts.iter().all(|part| !part.is_empty()));
            prop_assert_eq!(parts.concat(), framed(message.encode_to_vec()));
            prop_assert_eq!(payload(parts).concat(), message.encode_to_vec());
            let parts = frame_of_stream(error_message.clone(), message.clone()).expect("fits");
            let message = ModelStreamInferResponse { error_message, infer_response: Some(message) };
            prop_assert_eq!(parts.concat(), framed(message.encode_to_vec()));
        }

        #[test]
        fn any_start_of_a_message_is_looked_at_without_a_panic(bytes in any::<Vec<u8>>()) {
            prop_assert!(tensors_at(&bytes).is_none_or(|at| at <= bytes.len()));
        }
    }
}

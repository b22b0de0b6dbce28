//! `application/vnd.amazon.eventstream`: the frames in which AWS's SDKs read an answer that comes in parts.
//!
//! A frame is: its length and that of its headers, their CRC-32; the headers (name, type 7, value); the payload; the CRC-32
//! of all before.

use crc_fast::CrcAlgorithm::Crc32IsoHdlc;
use crc_fast::checksum;
use serde::Serialize;

/// What the answer says that its body is.
pub(super) const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";
/// The most bytes of a payload: SDKs refuse frames of more than 24 MiB.
const MAX_PAYLOAD: usize = 8 << 20;
/// The type of headers that hold a string.
const STRING: u8 = 7;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Exception<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
}

/// A part of the answer: one `PayloadPart`, or several where it is large.
pub(super) fn payload_parts(payload: &[u8]) -> Vec<u8> {
    let headers =
        [(":event-type", "PayloadPart"), (":content-type", "application/octet-stream"), (":message-type", "event")];
    payload.chunks(MAX_PAYLOAD).flat_map(|chunk| frame(&headers, chunk)).collect()
}

/// The answer breaks off; `is_model` says that it is the model's doing.
pub(super) fn exception(is_model: bool, message: &str) -> Vec<u8> {
    let (kind, error_code) =
        if is_model { ("ModelStreamError", Some("StreamBroken")) } else { ("InternalStreamFailure", None) };
    let headers = [(":exception-type", kind), (":content-type", "application/json"), (":message-type", "exception")];
    let payload = serde_json::to_vec(&Exception { message, error_code });
    frame(&headers, &payload.expect("invariant: a plain structure"))
}

fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (name, value) in headers {
        encoded.push(u8::try_from(name.len()).expect("invariant: our names are short"));
        encoded.extend(name.bytes());
        encoded.push(STRING);
        encoded.extend(u16::try_from(value.len()).expect("invariant: our values are short").to_be_bytes());
        encoded.extend(value.bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).expect("invariant: a payload is bounded").to_be_bytes();
    // Two lengths and two checksums.
    let total = 16 + encoded.len() + payload.len();
    let mut frame = Vec::with_capacity(total);
    frame.extend(length(total));
    frame.extend(length(encoded.len()));
    frame.extend(crc(&frame));
    frame.extend(encoded);
    frame.extend(payload);
    frame.extend(crc(&frame));
    frame
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    let sum = u32::try_from(checksum(Crc32IsoHdlc, bytes)).expect("invariant: a CRC-32 has 32 bits");
    sum.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As botocore's own encoder writes it.
    #[test]
    fn a_part_has_the_bytes_that_sdks_expect() {
        let expected = "0000006f000000596cf7d6a50b3a6576656e742d7479706507000b5061796c6f6164506172740d3a636f6e74656e742d74\
                        7970650700186170706c69636174696f6e2f6f637465742d73747265616d0d3a6d6573736167652d747970650700056576\
                        656e7468656c6c6f20901be2b4";
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&payload_parts(b"hello ")), expected);
    }

    #[test]
    fn large_parts_are_split_and_lengths_and_sums_are_right() {
        let stream = payload_parts(&vec![7; MAX_PAYLOAD + 1]);
        let mut rest = &stream[..];
        let mut payloads = Vec::new();
        while !rest.is_empty() {
            let number = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().expect("4 bytes")) as usize;
            let (total, headers) = (number(0), number(4));
            assert_eq!(crc(&rest[..8]), rest[8..12]);
            assert_eq!(crc(&rest[..total - 4]), rest[total - 4..total]);
            payloads.push(total - headers - 16);
            rest = &rest[total..];
        }
        assert_eq!(payloads, [MAX_PAYLOAD, 1]);
    }
}

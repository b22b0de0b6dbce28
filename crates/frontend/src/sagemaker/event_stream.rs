//! `application/vnd.amazon.eventstream`: the frames in which AWS's SDKs read an answer that comes in parts.
//!
//! A frame is: its length and that of its headers, their CRC-32; the headers (name, type 7, value); the payload; the CRC-32
//! of all before.

use std::collections::VecDeque;

use bytes::Bytes;
use crc_fast::CrcAlgorithm::Crc32IsoHdlc;
use crc_fast::Digest;
use serde::Serialize;

/// What the answer says that its body is.
pub(super) const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";
/// The most bytes of a payload: SDKs refuse frames of more than 24 MiB, and its checksum is made without a pause.
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

/// A part of the answer: one `PayloadPart`, or several where it is large. The payload's bytes are handed on as they lie; a
/// frame's checksum is made when its first bytes are asked for.
pub(super) fn payload_parts(payload: impl IntoIterator<Item = Bytes>) -> impl Iterator<Item = Bytes> {
    let headers =
        [(":event-type", "PayloadPart"), (":content-type", "application/octet-stream"), (":message-type", "event")];
    let mut rest: VecDeque<Bytes> = payload.into_iter().filter(|bytes| !bytes.is_empty()).collect();
    let chunks = std::iter::from_fn(move || Some(next_chunk(&mut rest)).filter(|chunk| !chunk.is_empty()));
    chunks.flat_map(move |chunk| frame(&headers, chunk))
}

/// Takes as much as one frame may hold.
fn next_chunk(rest: &mut VecDeque<Bytes>) -> Vec<Bytes> {
    let (mut chunk, mut room) = (Vec::new(), MAX_PAYLOAD);
    while room > 0
        && let Some(front) = rest.front_mut()
    {
        let taken = if front.len() <= room { rest.pop_front().unwrap_or_default() } else { front.split_to(room) };
        room -= taken.len();
        chunk.push(taken);
    }
    chunk
}

/// The answer breaks off; `is_model` says that it is the model's doing.
pub(super) fn exception(is_model: bool, message: &str) -> Bytes {
    let (kind, error_code) =
        if is_model { ("ModelStreamError", Some("StreamBroken")) } else { ("InternalStreamFailure", None) };
    let headers = [(":exception-type", kind), (":content-type", "application/json"), (":message-type", "exception")];
    let payload = serde_json::to_vec(&Exception { message, error_code });
    frame(&headers, vec![payload.expect("invariant: a plain structure").into()]).concat().into()
}

/// What stands before the payload, the payload, and the checksum.
fn frame(headers: &[(&str, &str)], payload: Vec<Bytes>) -> Vec<Bytes> {
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
    let total = 16 + encoded.len() + payload.iter().map(Bytes::len).sum::<usize>();
    let mut head = Vec::with_capacity(12 + encoded.len());
    head.extend(length(total));
    head.extend(length(encoded.len()));
    head.extend(crc([&head]));
    head.extend(encoded);
    let sum = crc(std::iter::once(&head[..]).chain(payload.iter().map(|bytes| &bytes[..])));
    let mut frame = Vec::with_capacity(payload.len() + 2);
    frame.push(Bytes::from(head));
    frame.extend(payload);
    frame.push(Bytes::copy_from_slice(&sum));
    frame
}

/// The checksum of these, one after the other.
fn crc<'a, B: AsRef<[u8]> + ?Sized + 'a>(parts: impl IntoIterator<Item = &'a B>) -> [u8; 4] {
    let mut digest = Digest::new(Crc32IsoHdlc);
    parts.into_iter().for_each(|part| digest.update(part.as_ref()));
    let sum = u32::try_from(digest.finalize()).expect("invariant: a CRC-32 has 32 bits");
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
        for payload in [&["hello "][..], &["he", "", "llo "]] {
            let payload = payload.iter().map(|text| Bytes::from_static(text.as_bytes()));
            assert_eq!(hex(&payload_parts(payload).collect::<Vec<_>>().concat()), expected);
        }
        assert_eq!(payload_parts([Bytes::new()]).count(), 0);
    }

    #[test]
    fn large_parts_are_split_and_lengths_and_sums_are_right() {
        let payload = [Bytes::from_static(b"head"), Bytes::from(vec![7; MAX_PAYLOAD])];
        let parts: Vec<_> = payload_parts(payload.clone()).collect();
        let addresses: Vec<_> = parts.iter().map(|part| part.as_ptr()).collect();
        let own = [payload[0].as_ptr(), payload[1].as_ptr(), payload[1][MAX_PAYLOAD - 4..].as_ptr()];
        assert_eq!([addresses[1], addresses[2], addresses[5]], own, "nothing is copied");
        let stream = parts.concat();
        let mut rest = &stream[..];
        let mut payloads = Vec::new();
        while !rest.is_empty() {
            let number = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().expect("4 bytes")) as usize;
            let (total, headers) = (number(0), number(4));
            assert_eq!(crc([&rest[..8]]), rest[8..12]);
            assert_eq!(crc([&rest[..total - 4]]), rest[total - 4..total]);
            payloads.push(total - headers - 16);
            rest = &rest[total..];
        }
        assert_eq!(payloads, [MAX_PAYLOAD, 4]);
    }
}

//! Decompression that stops at a bomb, and says what a file is that is not gzip.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;

use super::limits::UnpackLimits;
use super::source::Source;
use crate::failure::Failure;

/// Enough to see a tar header's magic.
const PEEK_BYTES: usize = 512;

/// The decompressed bytes of an archive; several gzip members in a row are one stream. Errors carry a [`Failure`].
pub(super) struct Gunzip<'a> {
    decoder: MultiGzDecoder<&'a mut Source>,
    produced: u64,
    limits: UnpackLimits,
}

impl<'a> Gunzip<'a> {
    pub(super) fn new(source: &'a mut Source, limits: &UnpackLimits) -> Result<Self, Failure> {
        let start = source.peek(PEEK_BYTES)?;
        if !start.starts_with(&[0x1f, 0x8b]) {
            return Err(Failure::archive(format!("it is not gzip but {}; upload a .tar.gz", looks_like(start))));
        }
        Ok(Gunzip { decoder: MultiGzDecoder::new(source), produced: 0, limits: *limits })
    }

    fn check_size(&self) -> Result<(), Failure> {
        let UnpackLimits { max_unpacked_bytes, max_expansion_ratio, .. } = self.limits;
        if self.produced > max_unpacked_bytes {
            return Err(Failure::archive(format!("it unpacks to more than the limit of {max_unpacked_bytes} bytes")));
        }
        let consumed = self.decoder.get_ref().consumed();
        let bound = consumed.saturating_mul(max_expansion_ratio).max(UnpackLimits::RATIO_FREE_BYTES);
        if self.produced > bound {
            return Err(Failure::archive(format!(
                "its first {consumed} bytes unpack to {}, more than {max_expansion_ratio} times as many: it looks like a \
                 decompression bomb",
                self.produced
            )));
        }
        Ok(())
    }

    fn explain(&self, error: io::Error) -> Failure {
        let error = match Failure::carried_by(error) {
            Ok(failure) => return failure,
            Err(error) => error,
        };
        let position = self.decoder.get_ref().consumed();
        Failure::archive(match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                format!("it is truncated: the gzip stream ends early, after {position} bytes")
            }
            _ if self.decoder.header().is_none() && self.produced > 0 => {
                format!("something that is not gzip follows the compressed data, near byte {position}")
            }
            _ => format!("it is corrupt: {error}, near byte {position}"),
        })
    }
}

impl Read for Gunzip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer).map_err(|error| self.explain(error))?;
        self.produced += count as u64;
        self.check_size()?;
        Ok(count)
    }
}

/// What a file seems to be, by its first bytes.
fn looks_like(start: &[u8]) -> String {
    let known: [(&[u8], &str); 8] = [
        (b"PK\x03\x04", "a zip archive"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh", "bzip2"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!", "a rar archive"),
        (b"<", "a page of HTML or XML"),
        (b"version https://git-lfs", "a Git LFS pointer"),
    ];
    if start.is_empty() {
        return "empty (0 bytes)".to_owned();
    }
    if start.get(257..262) == Some(b"ustar") {
        return "an uncompressed tar".to_owned();
    }
    match known.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, name)) => format!("looks like {name}"),
        None => format!("begins with the bytes {:02x?}", &start[..start.len().min(4)]),
    }
}

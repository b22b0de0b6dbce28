//! gzip and deflate, both ways. What comes out of a small message may be huge, so reading has the bounds of a body.

mod inflate;

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

pub(crate) use self::inflate::Inflater;
use crate::admission::BodyShare;
use crate::body::Whole;
use crate::infer::off_thread;
use crate::status::Failure;

/// Bytes that take longer to compress than a hop to another thread is worth saving.
const LONG: usize = 32 << 10;
/// Compressed bytes that can take longer to unpack: they may grow a thousandfold.
pub(crate) const LONG_COMPRESSED: usize = 4 << 10;

/// A way of compressing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    /// The zlib format, as HTTP and gRPC mean it.
    Deflate,
}

impl Encoding {
    /// By its name in headers.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Encoding::Gzip, Encoding::Deflate].into_iter().find(|encoding| name.eq_ignore_ascii_case(encoding.name()))
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
        }
    }
}

/// Unpacks `bytes` to at most `max_size` bytes, which are counted in `share`.
///
/// # Errors
/// BodyTooLarge past `max_size`, Overloaded when all bodies together would hold too many bytes, InvalidArgument when the
/// bytes are not what `encoding` says.
pub(crate) async fn unpack(
    encoding: Encoding,
    bytes: Bytes,
    max_size: u64,
    mut share: BodyShare,
) -> Result<Whole, Failure> {
    let is_long = bytes.len() > LONG_COMPRESSED;
    let job = move || {
        let bytes = decompress(encoding, &bytes, max_size, &mut share)?;
        Ok(Whole { bytes, share })
    };
    if is_long { off_thread(job).await } else { job() }
}

fn decompress(encoding: Encoding, bytes: &[u8], max_size: u64, share: &mut BodyShare) -> Result<Bytes, Failure> {
    let mut inflater = Inflater::new(encoding, max_size, None);
    inflater.add(bytes, share)?;
    inflater.whole()
}

/// Packs `parts`, one after the other; `level` is 0 (fast) to 9 (small).
pub(crate) async fn pack(encoding: Encoding, level: u32, parts: Vec<Bytes>) -> Bytes {
    let is_long = parts.iter().map(Bytes::len).sum::<usize>() > LONG;
    let job = move || compress(encoding, level, &parts);
    if is_long { off_thread(job).await } else { job() }
}

/// [`pack`] on this thread.
pub(crate) fn compress(encoding: Encoding, level: u32, parts: &[Bytes]) -> Bytes {
    let level = Compression::new(level);
    const IN_MEMORY: &str = "invariant: writing to memory does not fail";
    let packed = match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            parts.iter().for_each(|part| encoder.write_all(part).expect(IN_MEMORY));
            encoder.finish()
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            parts.iter().for_each(|part| encoder.write_all(part).expect(IN_MEMORY));
            encoder.finish()
        }
    };
    packed.expect(IN_MEMORY).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Admission;

    #[test]
    fn what_was_packed_is_unpacked_within_its_bounds() {
        let admission = Admission::new(1, 1 << 20);
        let parts = [Bytes::from(vec![7; 100_000]), Bytes::from_static(b"tail")];
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            assert_eq!(Encoding::from_name(encoding.name()), Some(encoding));
            let packed = compress(encoding, 6, &parts);
            assert!(packed.len() < 1000, "{}", packed.len());
            let unpacked = decompress(encoding, &packed, 100_004, &mut admission.body()).expect("fits");
            assert_eq!(unpacked, parts.concat());

            let failure = decompress(encoding, &packed, 100_003, &mut admission.body()).expect_err("too large");
            assert!(failure.message().contains("100003 bytes that --max-request-size allows"), "{failure:?}");
            let small = Admission::new(1, 99_999);
            let failure = decompress(encoding, &packed, 1 << 20, &mut small.body()).expect_err("too much");
            assert!(failure.message().contains("--max-buffered-bytes"), "{failure:?}");
            for broken in [&packed[..packed.len() / 2], b"not packed".as_slice()] {
                let failure = decompress(encoding, broken, 1 << 20, &mut admission.body()).expect_err("broken");
                assert_eq!(failure.status(false).label, "invalid_argument", "{failure:?}");
            }
        }
        assert_eq!(Encoding::from_name("br"), None);
    }
}

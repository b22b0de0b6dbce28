//! Decompresses a body part by part, so that its size is checked before it takes memory.

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use inference::Error;

use super::Encoding;
use crate::admission::BodyShare;
use crate::body::check_size;
use crate::gathered::Gathered;
use crate::status::Failure;

/// Bytes that are decompressed at once; the bounds are checked after each time.
const STEP: usize = 64 << 10;

/// A body on its way out of its compression.
pub(crate) struct Inflater {
    encoding: Encoding,
    state: Decompress,
    step: Box<[u8]>,
    inflated: Gathered,
    /// The largest body.
    limit: u64,
    ended: bool,
}

impl Inflater {
    pub(crate) fn new(encoding: Encoding, limit: u64, tensors_at: Option<usize>) -> Self {
        let state = match encoding {
            // The largest window, which takes every smaller one.
            Encoding::Gzip => Decompress::new_gzip(15),
            Encoding::Deflate => Decompress::new(true),
        };
        let (step, inflated) = (vec![0; STEP].into(), Gathered::new(None, STEP, tensors_at));
        Inflater { encoding, state, step, inflated, limit, ended: false }
    }

    /// Takes the next part; what comes out of it is counted in `share`.
    ///
    /// # Errors
    /// BodyTooLarge past the limit, Overloaded when all bodies together would hold too many bytes, InvalidArgument for what
    /// is not compressed as it should be.
    pub(crate) fn add(&mut self, mut part: &[u8], share: &mut BodyShare) -> Result<(), Failure> {
        while !self.ended {
            let (read, written) = (self.state.total_in(), self.state.total_out());
            let outcome = self.state.decompress(part, &mut self.step, FlushDecompress::None);
            let status = outcome.map_err(|error| self.broken(&error.to_string()))?;
            let (read, written) = (self.state.total_in() - read, (self.state.total_out() - written) as usize);
            part = &part[read as usize..];
            check_size((self.inflated.len() + written) as u64, self.limit)?;
            share.add(written)?;
            self.inflated.add(&self.step[..written]);
            self.ended = status == Status::StreamEnd;
            if read == 0 && written == 0 {
                break;
            }
        }
        if part.is_empty() { Ok(()) } else { Err(self.broken("there is more behind its end")) }
    }

    /// The body, once all of it was taken.
    ///
    /// # Errors
    /// InvalidArgument when it is not complete.
    pub(crate) fn whole(self) -> Result<Bytes, Failure> {
        if !self.ended {
            return Err(self.broken("it ends too early"));
        }
        Ok(self.inflated.whole("body_inflated"))
    }

    fn broken(&self, why: &str) -> Failure {
        let name = self.encoding.name();
        let message = format!("the request's body is not in the encoding '{name}' that its head names: {why}");
        Error::invalid_argument(message).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admission::Admission;
    use crate::compression::compress;
    use crate::gathered::ALIGNMENT;

    fn compressed(encoding: Encoding, data: &[u8]) -> Vec<u8> {
        compress(encoding, 6, &[Bytes::copy_from_slice(data)]).to_vec()
    }

    fn inflate(encoding: Encoding, parts: &[&[u8]], limit: u64, admitted: u64) -> Result<Bytes, Failure> {
        let mut share = Admission::new(1, admitted).body();
        let mut inflater = Inflater::new(encoding, limit, Some(3));
        parts.iter().try_for_each(|part| inflater.add(part, &mut share))?;
        inflater.whole()
    }

    proptest! {
        #[test]
        fn every_body_comes_out_as_it_was_however_it_is_cut(
            data in (proptest::collection::vec(any::<u8>(), 0..300), 0..500usize).prop_map(|(row, times)| row.repeat(times)),
            cut in 0.0..1.0f64,
            gzip in any::<bool>(),
        ) {
            let encoding = if gzip { Encoding::Gzip } else { Encoding::Deflate };
            let body = compressed(encoding, &data);
            let (first, second) = body.split_at((body.len() as f64 * cut) as usize);
            let size = data.len() as u64;
            let inflated = inflate(encoding, &[first, second], size, size).expect("fits");
            prop_assert_eq!(&inflated[..], &data[..]);
            prop_assert_eq!(inflated.as_ptr().addr().wrapping_add(3) % ALIGNMENT, 0);
            let failure = inflate(encoding, &[first], size, size).expect_err("cut off");
            prop_assert_eq!(failure.status(false).http, 400);
            if size > 0 {
                let failure = inflate(encoding, &[&body], size - 1, size).expect_err("too large");
                prop_assert_eq!(failure.status(false).http, 413);
                let failure = inflate(encoding, &[&body], size, size - 1).expect_err("too many at once");
                prop_assert_eq!(failure.status(false).http, 503);
            }
        }

        #[test]
        fn what_is_not_compressed_is_refused(data in any::<Vec<u8>>()) {
            for encoding in [Encoding::Gzip, Encoding::Deflate] {
                if let Err(failure) = inflate(encoding, &[&data], 1 << 20, 1 << 20) {
                    prop_assert_eq!(failure.status(false).http, 400);
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_takes_memory() {
        let bomb = compressed(Encoding::Gzip, &vec![0; 64 << 20]);
        let mut inflater = Inflater::new(Encoding::Gzip, 100_000, None);
        let failure = inflater.add(&bomb, &mut Admission::default().body()).expect_err("64 MiB");
        assert_eq!(failure.status(false).http, 413);
        assert!(inflater.inflated.len() <= 100_000);
    }

    #[test]
    fn nothing_may_follow_the_end() {
        let mut body = compressed(Encoding::Deflate, b"abc");
        body.push(0);
        let failure = inflate(Encoding::Deflate, &[&body], 10, 10).expect_err("one more");
        assert!(failure.message().contains("there is more behind its end"), "{failure:?}");
    }
}

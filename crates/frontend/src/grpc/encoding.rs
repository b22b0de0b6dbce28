//! What messages are compressed with, both ways. Pure.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::compression::Encoding;
use crate::config::GrpcCompression;
use crate::status::{Failure, Refusal};

pub(super) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub(super) const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// What requests may be compressed with.
pub(super) const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip,deflate,identity");

/// What a call's request is compressed with, if it is.
///
/// # Errors
/// Refused when it is not known.
pub(super) fn of_request(headers: &HeaderMap) -> Result<Option<Encoding>, Failure> {
    let Some(value) = headers.get(ENCODING).filter(|value| *value != "identity") else { return Ok(None) };
    let known = value.to_str().ok().and_then(Encoding::from_name);
    known.map(Some).ok_or_else(|| {
        let message = format!("the message's encoding {value:?} is not supported; use gzip, deflate or identity");
        Failure::Refused(Refusal::Encoding, message)
    })
}

/// What the answer is compressed with: nothing that its client does not read, and rather what its request was compressed with.
pub(super) fn of_answer(headers: &HeaderMap, request: Option<Encoding>, setting: GrpcCompression) -> Option<Encoding> {
    match setting {
        GrpcCompression::Never => return None,
        GrpcCompression::AsRequest => request?,
        GrpcCompression::Level(_) => Encoding::Gzip,
    };
    let accepted = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
    let accepts = |encoding: &Encoding| accepted.split(',').any(|name| name.trim() == encoding.name());
    request.into_iter().chain([Encoding::Gzip, Encoding::Deflate]).find(accepts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn requests_name_their_encoding() {
        let read = |value| of_request(&headers(ENCODING, value));
        assert_eq!(of_request(&HeaderMap::new()).expect("none"), None);
        assert_eq!(read("identity").expect("none"), None);
        assert_eq!(read("gzip").expect("known"), Some(Encoding::Gzip));
        assert_eq!(read("deflate").expect("known"), Some(Encoding::Deflate));
        assert_eq!(read("br").expect_err("unknown").status(false).grpc, 12);
    }

    #[test]
    fn answers_are_compressed_as_set_and_only_for_those_who_read_it() {
        use Encoding::{Deflate, Gzip};
        use GrpcCompression::{AsRequest, Level, Never};
        let both = "identity, deflate, gzip";
        let cases = [
            (AsRequest, None, both, None),
            (AsRequest, Some(Deflate), both, Some(Deflate)),
            (AsRequest, Some(Deflate), "gzip", Some(Gzip)),
            (AsRequest, Some(Gzip), "identity", None),
            (Never, Some(Gzip), both, None),
            (Level(1), None, both, Some(Gzip)),
            (Level(1), None, "deflate", Some(Deflate)),
            (Level(1), Some(Deflate), both, Some(Deflate)),
            (Level(1), None, "identity", None),
        ];
        for (setting, request, accepted, expected) in cases {
            let answer = of_answer(&headers(ACCEPT_ENCODING, accepted), request, setting);
            assert_eq!(answer, expected, "{setting:?} {request:?} {accepted}");
        }
        assert_eq!(of_answer(&HeaderMap::new(), Some(Gzip), AsRequest), None);
    }
}

//! `Content-Encoding` and `Accept-Encoding` of HTTP: gzip and deflate, both ways. What is not compressed never comes here.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use crate::compression::{self, Encoding};
use crate::status::{Failure, Refusal};

/// What bodies may be compressed with, as the header `Accept-Encoding` says it.
pub(crate) const SUPPORTED: HeaderValue = HeaderValue::from_static("gzip, deflate");

/// Smaller answers fit one packet, compressed or not.
const WORTH_IT: usize = 1 << 10;
/// A model's numbers hardly shrink further however long one tries.
const LEVEL: u32 = 1;

fn from_name(name: &str) -> Option<Encoding> {
    if name.eq_ignore_ascii_case("x-gzip") { Some(Encoding::Gzip) } else { Encoding::from_name(name) }
}

/// How a request's body is compressed, if it is.
///
/// # Errors
/// [`Refusal::Encoding`] for what is not known.
pub(crate) fn of_request(headers: &HeaderMap) -> Result<Option<Encoding>, Failure> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
    let name = value.to_str().unwrap_or("?").trim();
    if name.is_empty() || name.eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    let single = headers.get_all(header::CONTENT_ENCODING).iter().count() == 1;
    from_name(name).filter(|_| single).map(Some).ok_or_else(|| {
        let message =
            format!("Content-Encoding {value:?} is not supported; send gzip, deflate, or the body uncompressed");
        Failure::Refused(Refusal::Encoding, message)
    })
}

/// How the client wants its answer compressed, if it asks for that: what it likes best, gzip where it likes both alike.
pub(crate) fn of_answer(headers: &HeaderMap) -> Option<Encoding> {
    let mut best = None;
    let mut best_weight = 0.0;
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or_default().split(',') {
            let (name, weight) = weighted(item);
            let encoding = from_name(name);
            if encoding.is_none() && !name.eq_ignore_ascii_case("identity") {
                continue;
            }
            if weight > best_weight || (weight == best_weight && weight > 0.0 && encoding == Some(Encoding::Gzip)) {
                (best, best_weight) = (encoding, weight);
            }
        }
    }
    best
}

/// A name and its `q`, which is 1 where it is not given, and 0 where it cannot be read.
fn weighted(item: &str) -> (&str, f32) {
    let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
    let weight = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
    (name.trim(), weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0)))
}

/// The parts as one compressed part, and the header that says so; or the parts as they are where compressing gains nothing.
/// The second value says which.
pub(crate) async fn compress(encoding: Encoding, parts: Vec<Bytes>, headers: &mut HeaderMap) -> (Vec<Bytes>, bool) {
    let size: usize = parts.iter().map(Bytes::len).sum();
    if size < WORTH_IT {
        return (parts, false);
    }
    let compressed = compression::pack(encoding, LEVEL, parts.clone()).await;
    if compressed.len() >= size {
        return (parts, false);
    }
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
    (vec![compressed], true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| {
            headers.append(&name, HeaderValue::from_static(value));
        });
        headers
    }

    #[test]
    fn answers_are_compressed_as_the_client_likes_best() {
        let cases: [(&[&str], Option<Encoding>); 10] = [
            (&[], None),
            (&[""], None),
            (&["br, *"], None),
            (&["gzip"], Some(Encoding::Gzip)),
            (&["deflate, gzip"], Some(Encoding::Gzip)),
            (&["gzip;q=0.5,deflate; q=0.8"], Some(Encoding::Deflate)),
            (&["gzip;q=0"], None),
            (&["identity, gzip;q=0.9"], None),
            (&["br", "GZIP"], Some(Encoding::Gzip)),
            (&["gzip;q=x;q=1"], None),
        ];
        for (values, expected) in cases {
            assert_eq!(of_answer(&headers(header::ACCEPT_ENCODING, values)), expected, "{values:?}");
        }
    }

    #[test]
    fn requests_say_how_they_are_compressed() {
        let of = |values: &[&'static str]| of_request(&headers(header::CONTENT_ENCODING, values));
        for (values, expected) in [
            (&[][..], None),
            (&["identity"], None),
            (&["gzip"], Some(Encoding::Gzip)),
            (&["X-GZIP"], Some(Encoding::Gzip)),
            (&["deflate"], Some(Encoding::Deflate)),
        ] {
            assert_eq!(of(values).expect("known"), expected, "{values:?}");
        }
        for values in [&["br"][..], &["gzip, deflate"], &["gzip", "gzip"]] {
            let failure = of(values).expect_err("not known");
            assert_eq!(failure.status(false).http, 415, "{values:?}");
        }
    }
}

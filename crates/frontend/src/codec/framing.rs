//! How a request's and an answer's body are laid out: JSON alone, or JSON and then the bytes of tensors.

use http::{HeaderMap, HeaderValue, header};
use inference::{Error, Result};

/// The header of Triton's binary extension: how many bytes of JSON come before the tensors.
pub(crate) const JSON_LENGTH_HEADER: &str = "inference-header-content-length";
/// The content type that says the same where a proxy passes only that header on.
pub(crate) const BINARY_TYPE: &str = "application/vnd.sagemaker-triton.binary+json";
const JSON_LENGTH_PARAMETER: &str = "json-header-size";

/// The layout of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// All of it is JSON.
    Json,
    /// So many bytes of JSON, then tensors.
    Binary(usize),
    /// All of it is the one input's data.
    Raw,
}

/// How an answer with binary tensors says how long its JSON is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announce {
    /// By [`JSON_LENGTH_HEADER`].
    Header,
    /// By [`BINARY_TYPE`].
    ContentType,
}

/// What a request's head says about bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    /// The request's layout.
    pub(crate) layout: Layout,
    /// How the answer's layout is announced.
    pub(crate) announce: Announce,
    /// Whether outputs are binary where the request does not say.
    pub(crate) prefers_binary: bool,
}

impl Framing {
    /// Reads the head. `announce` is the surface's own way, where the client does not use one. Any other content type is
    /// read as JSON.
    pub(crate) fn from_headers(headers: &HeaderMap, announce: Announce) -> Result<Self> {
        let accepts_binary = text(headers, &header::ACCEPT)
            .is_some_and(|accept| accept.split(',').any(|one| media_type(one).eq_ignore_ascii_case(BINARY_TYPE)));
        let announce = if accepts_binary { Announce::ContentType } else { announce };
        if let Some(length) = headers.get(JSON_LENGTH_HEADER) {
            let layout = layout(length.to_str().unwrap_or_default(), "Inference-Header-Content-Length")?;
            let announce = if accepts_binary { announce } else { Announce::Header };
            return Ok(Framing { layout, announce, prefers_binary: accepts_binary || layout == Layout::Raw });
        }
        let content_type = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
        if media_type(content_type).eq_ignore_ascii_case(BINARY_TYPE) {
            let layout = layout(parameter(content_type).unwrap_or_default(), "json-header-size in Content-Type")?;
            let prefers_binary = accepts_binary || layout == Layout::Raw;
            return Ok(Framing { layout, announce: Announce::ContentType, prefers_binary });
        }
        Ok(Framing { layout: Layout::Json, announce, prefers_binary: accepts_binary })
    }

    /// Where in the body binary tensors begin, if there are any.
    pub(crate) fn tensors_at(&self) -> Option<usize> {
        match self.layout {
            Layout::Json => None,
            Layout::Binary(length) => Some(length),
            Layout::Raw => Some(0),
        }
    }
}

/// Sets the headers of an answer with `json_length` bytes of JSON before its tensors; `None` when it is all JSON.
pub(crate) fn announce(headers: &mut HeaderMap, how: Announce, json_length: Option<usize>) {
    let octets = HeaderValue::from_static("application/octet-stream");
    let content_type = match (json_length, how) {
        (None, _) => HeaderValue::from_static("application/json"),
        (Some(length), Announce::Header) => {
            headers.insert(JSON_LENGTH_HEADER, HeaderValue::from(length));
            octets
        }
        (Some(length), Announce::ContentType) => {
            let value = format!("{BINARY_TYPE};{JSON_LENGTH_PARAMETER}={length}");
            HeaderValue::try_from(value).expect("invariant: ASCII")
        }
    };
    headers.insert(header::CONTENT_TYPE, content_type);
}

fn layout(length: &str, source: &str) -> Result<Layout> {
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    match length.parse::<usize>() {
        Ok(0) => Ok(Layout::Raw),
        Ok(length) if digits => Ok(Layout::Binary(length)),
        _ => Err(Error::invalid_argument(format!(
            "{source} is {length:?}; expected the number of bytes of JSON before the binary tensors"
        ))),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

fn parameter(content_type: &str) -> Option<&str> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case(JSON_LENGTH_PARAMETER).then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(headers: &[(&str, &str)]) -> Result<Framing> {
        let headers = headers.iter().map(|(name, value)| {
            let name: header::HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        });
        Framing::from_headers(&headers.collect(), Announce::Header)
    }

    #[test]
    fn headers_decide_and_content_types_do_not() {
        let binary = "application/vnd.sagemaker-triton.binary+json;json-header-size=12";
        type Case<'a> = (&'a [(&'a str, &'a str)], Layout, Announce, bool);
        let cases: [Case<'_>; 8] = [
            (&[], Layout::Json, Announce::Header, false),
            (&[("content-type", "application/octet-stream")], Layout::Json, Announce::Header, false),
            (&[(JSON_LENGTH_HEADER, "7")], Layout::Binary(7), Announce::Header, false),
            (&[(JSON_LENGTH_HEADER, "0")], Layout::Raw, Announce::Header, true),
            (&[("content-type", binary)], Layout::Binary(12), Announce::ContentType, false),
            (&[("accept", BINARY_TYPE)], Layout::Json, Announce::ContentType, true),
            (&[("accept", "application/json")], Layout::Json, Announce::Header, false),
            (&[("content-type", binary), (JSON_LENGTH_HEADER, "7")], Layout::Binary(7), Announce::Header, false),
        ];
        for (headers, layout, announce, prefers_binary) in cases {
            let expected = Framing { layout, announce, prefers_binary };
            assert_eq!(framing(headers).expect("valid"), expected, "{headers:?}");
        }
        for bad in [(JSON_LENGTH_HEADER, "-1"), (JSON_LENGTH_HEADER, "+1"), ("content-type", BINARY_TYPE)] {
            assert!(framing(&[bad]).is_err(), "{bad:?}");
        }
    }
}

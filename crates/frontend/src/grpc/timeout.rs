//! The header `grpc-timeout`: how long a client waits.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use inference::{Error, Result};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The call's timeout, when the client has one.
///
/// # Errors
/// InvalidArgument when the header is not at most 8 digits and a unit.
pub(super) fn of_call(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(parse);
    parsed.map(Some).ok_or_else(|| {
        Error::invalid_argument(format!(
            "the header grpc-timeout is {value:?}; expected up to 8 digits and H, M, S, m, u or n"
        ))
    })
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_the_specification() {
        let cases = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("8n", Some(Duration::from_nanos(8))),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("+1S", None),
            ("123456789S", None),
            ("1s", None),
            ("1é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        assert_eq!(of_call(&HeaderMap::new()).expect("absent"), None);
        let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, http::HeaderValue::from_static("soon"))]);
        assert!(of_call(&headers).is_err());
    }
}

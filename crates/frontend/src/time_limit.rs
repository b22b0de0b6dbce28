//! The header `X-Panoply-Timeout`: how long an HTTP client waits.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use inference::{Error, Result};

const TIMEOUT: HeaderName = HeaderName::from_static("x-panoply-timeout");

/// When the caller of a request that began at `began` stops waiting: by its own word or by the surface's `limit`, whichever
/// comes first.
///
/// # Errors
/// InvalidArgument when the header is no time above 0.
pub(crate) fn deadline(headers: &HeaderMap, limit: Option<Duration>, began: Instant) -> Result<Option<Instant>> {
    let asked = of_request(headers)?;
    let limit = asked.into_iter().chain(limit).min();
    Ok(limit.and_then(|limit| began.checked_add(limit)))
}

/// How long the client waits, when it says so.
///
/// # Errors
/// As [`deadline`].
pub(crate) fn of_request(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let time = value.to_str().ok().and_then(parse).filter(|time| !time.is_zero());
    time.map(Some).ok_or_else(|| {
        Error::invalid_argument(format!(
            "the header X-Panoply-Timeout is {value:?}; expected a time above 0: seconds, as in 2.5, or numbers with units \
             (h, m, s, ms, us, ns), as in 1m30s or 500ms"
        ))
    })
}

/// Seconds, or numbers with units as Go writes them.
fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(seconds) = number(text) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let (mut sum, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let (digits, more) = rest.split_at(rest.find(|c: char| c.is_ascii_alphabetic())?);
        let end = more.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(more.len());
        let time = Duration::try_from_secs_f64(number(digits)? * seconds_of(&more[..end])?).ok()?;
        sum = sum.checked_add(time)?;
        rest = &more[end..];
    }
    (!text.is_empty()).then_some(sum)
}

/// A decimal number without a sign or an exponent.
fn number(text: &str) -> Option<f64> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_decimal.then(|| text.parse().ok())?
}

fn seconds_of(unit: &str) -> Option<f64> {
    match unit {
        "h" => Some(3600.0),
        "m" => Some(60.0),
        "s" => Some(1.0),
        "ms" => Some(1e-3),
        "us" => Some(1e-6),
        "ns" => Some(1e-9),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn seconds_and_times_with_units() {
        let cases = [
            ("2", Some(2000)),
            ("2.5", Some(2500)),
            (".5", Some(500)),
            ("1.5s", Some(1500)),
            ("500ms", Some(500)),
            ("1m30s", Some(90_000)),
            ("1h0.5m", Some(3_630_000)),
            ("2000us", Some(2)),
            ("3000000ns", Some(3)),
            (" 4 ", Some(4000)),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("inf", None),
            ("nan", None),
            ("s", None),
            ("1s2", None),
            ("1 s", None),
            ("1d", None),
            ("99999999999999999999h", None),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(parse(text), milliseconds.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn the_shorter_time_counts() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let headers = |value| HeaderMap::from_iter([(TIMEOUT, HeaderValue::from_static(value))]);
        let deadline = |headers: &HeaderMap, limit| deadline(headers, limit, began);
        assert_eq!(deadline(&HeaderMap::new(), None).expect("absent"), None);
        assert_eq!(deadline(&HeaderMap::new(), Some(second)).expect("absent"), Some(began + second));
        assert_eq!(deadline(&headers("3"), Some(second)).expect("valid"), Some(began + second));
        assert_eq!(deadline(&headers("1s"), Some(3 * second)).expect("valid"), Some(began + second));
        for bad in ["0", "0s", "soon"] {
            assert!(deadline(&headers(bad), None).is_err(), "{bad}");
        }
    }
}

//! W3C's Trace Context: who traces a request already, and whether it wants to know of us.

use http::{HeaderMap, HeaderName};
use inference::TraceContext;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The longest `tracestate` that must be passed on; a longer one is dropped.
const MAX_STATE: usize = 512;
/// The flag of a caller that records its own spans.
const SAMPLED: u8 = 1;

/// What the caller traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(super) context: TraceContext,
    pub(super) sampled: bool,
}

/// The caller's trace; `None` when it sends none, or one that is malformed, which is to be ignored.
pub(crate) fn of_caller(headers: &HeaderMap) -> Option<Caller> {
    let mut caller = parse(headers.get(TRACEPARENT)?.to_str().ok()?)?;
    let states: Vec<&str> = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let state = states.join(",");
    if state.len() <= MAX_STATE {
        caller.context.state = state.into();
    }
    Some(caller)
}

/// The headers of these that say what the caller traces.
pub(super) fn headers(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in [TRACEPARENT, TRACESTATE] {
        for value in headers.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// Reads `00-{trace}-{span}-{flags}`. Later versions may have more behind that.
fn parse(text: &str) -> Option<Caller> {
    let mut parts = text.trim().split('-');
    let version = hex(parts.next()?, 2)?;
    let trace_id = hex(parts.next()?, 32)?;
    let parent = u64::try_from(hex(parts.next()?, 16)?).ok()?;
    let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
    let well_formed = match version {
        0 => parts.next().is_none(),
        0xff => false,
        _ => true,
    };
    let context = TraceContext { trace_id, parent, ..TraceContext::default() };
    (well_formed && trace_id != 0 && parent != 0).then_some(Caller { context, sampled: flags & SAMPLED != 0 })
}

/// A number of exactly so many lower-case digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(is_digit)).then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_specifications_example_and_what_is_to_be_ignored() {
        let caller = parse(EXAMPLE).expect("valid");
        assert_eq!(caller.context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((caller.context.parent, caller.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert!(!parse(&EXAMPLE.replace("-01", "-00")).expect("valid").sampled);
        assert!(parse(&EXAMPLE.replacen("00", "cc", 1)).is_some(), "a later version");
        assert!(parse(&format!("{}-more", EXAMPLE.replacen("00", "cc", 1))).is_some(), "a later version");
        let bad = [
            "",
            "00",
            &EXAMPLE.replacen("00", "ff", 1),
            &EXAMPLE.replace("4bf9", "4BF9"),
            &EXAMPLE[..EXAMPLE.len() - 1],
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            &format!("{EXAMPLE}-more"),
        ];
        for bad in bad {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn states_are_joined_and_bounded() {
        let mut headers = HeaderMap::new();
        assert_eq!(of_caller(&headers), None);
        headers.insert(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        assert_eq!(&*of_caller(&headers).expect("valid").context.state, "a=1,b=2");
        headers.append(TRACESTATE, HeaderValue::try_from("x".repeat(MAX_STATE)).expect("ASCII"));
        assert_eq!(&*of_caller(&headers).expect("valid").context.state, "");
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_a_panic(text in "[0-9a-f-]{0,60}|.{0,60}") {
            let _ = parse(&text);
        }
    }
}

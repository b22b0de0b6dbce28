//! Headers that become parameters of a request, as Triton forwards them.

use http::HeaderMap;
use inference::{Parameter, Parameters};
use regex::bytes::{Regex, RegexBuilder};

/// Parameters that mean something to the server: no header may set them.
const RESERVED: [&str; 6] =
    ["binary_data_output", "priority", "sequence_end", "sequence_id", "sequence_start", "timeout"];
/// What the server's own parameters begin with.
const RESERVED_PREFIX: &str = "triton_";

/// Which headers are forwarded: those whose whole name the pattern matches, whatever their case.
#[derive(Clone, Debug)]
pub struct HeaderForward(Regex);

impl HeaderForward {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let whole = format!("^(?:{pattern})$");
        let regex = RegexBuilder::new(&whole).case_insensitive(true).unicode(false).build();
        regex.map(HeaderForward).map_err(|error| error.to_string())
    }

    /// Adds what matches to `parameters`, by lower-case names; what the client gave there itself stays.
    pub(crate) fn apply(&self, headers: &HeaderMap, parameters: &mut Parameters) {
        for name in headers.keys() {
            let key = name.as_str();
            let is_reserved = RESERVED.contains(&key) || key.starts_with(RESERVED_PREFIX);
            if is_reserved || parameters.contains_key(key) || !self.0.is_match(key.as_bytes()) {
                continue;
            }
            let values: Vec<_> =
                headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            parameters.insert(key.to_owned(), Parameter::String(values.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn forwarded(pattern: &str) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-user", "u"),
            ("x-user", "v"),
            ("x-user-2", "w"),
            ("priority", "1"),
            ("triton_x", "y"),
            ("given", "header"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut parameters = Parameters::from([("given".to_owned(), Parameter::Int64(1))]);
        HeaderForward::new(pattern).expect("valid").apply(&headers, &mut parameters);
        assert_eq!(parameters.remove("given"), Some(Parameter::Int64(1)), "what the client gave stays");
        parameters.iter().map(|(name, value)| format!("{name}={value:?}")).collect()
    }

    #[test]
    fn whole_names_in_any_case_but_none_that_is_reserved() {
        let both = [r#"x-user=String("u, v")"#, r#"x-user-2=String("w")"#];
        assert_eq!(forwarded("X-User"), both[..1]);
        assert_eq!(forwarded("x-.*"), both);
        assert_eq!(forwarded(".*"), both);
        assert_eq!(forwarded("user"), [""; 0]);
        assert_eq!(forwarded("a|x-user-[0-9]"), both[1..]);
        assert_eq!(forwarded("(?-i)X-User"), [""; 0]);
        assert!(HeaderForward::new("(").expect_err("broken").contains("unclosed group"));
    }
}

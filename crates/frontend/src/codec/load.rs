//! Reads the bodies of loads and unloads by name (Triton's model repository extension): `{"parameters":{…}}`, or nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use inference::{Error, LoadOverrides, Result};

use super::cursor::Cursor;
use super::request::check_count;
use crate::admission::BodyShare;
use crate::load_parameters::{
    CONFIG, FILE, PIN, UNLOAD_DEPENDENTS, unknown_load_parameter, unknown_unload_parameter, wrong_type,
};

/// Reads what a load brings along. What that takes beside the body counts in `share`.
///
/// # Errors
/// InvalidArgument that names the parameter or the place; Overloaded when all bodies together would hold too many bytes.
pub(crate) fn parse_load(body: &[u8], max_depth: usize, share: &mut BodyShare) -> Result<LoadOverrides> {
    let mut overrides = LoadOverrides::default();
    parameters(body, max_depth, |cursor, name| {
        if name == PIN {
            overrides.prefetch = !boolean(cursor, name)?;
            return Ok(());
        }
        let path = name.strip_prefix(FILE);
        if path.is_none() && name != CONFIG {
            return Err(unknown_load_parameter(name));
        }
        if cursor.peek() != Some(b'"') {
            return Err(wrong_type(name, "a string", kind(cursor)));
        }
        let text = cursor.string("a string")?;
        let Some(path) = path else {
            share.add(text.len())?;
            overrides.config = Some(text.into_owned());
            return Ok(());
        };
        share.add(base64::decoded_len_estimate(text.len()))?;
        let content = STANDARD
            .decode(text.as_bytes())
            .map_err(|error| Error::invalid_argument(format!("the parameter '{name}' is not base64: {error}")))?;
        overrides.files.insert(path.to_owned(), content.into());
        Ok(())
    })?;
    Ok(overrides)
}

/// Reads whether an unload takes along what was loaded for the model alone.
///
/// # Errors
/// InvalidArgument that names the parameter or the place.
pub(crate) fn parse_unload(body: &[u8], max_depth: usize) -> Result<bool> {
    let mut with_dependents = false;
    parameters(body, max_depth, |cursor, name| {
        if name != UNLOAD_DEPENDENTS {
            return Err(unknown_unload_parameter(name));
        }
        with_dependents = boolean(cursor, name)?;
        Ok(())
    })?;
    Ok(with_dependents)
}

fn boolean(cursor: &mut Cursor<'_>, name: &str) -> Result<bool> {
    match cursor.peek() {
        Some(b't' | b'f') => cursor.boolean(),
        _ => Err(wrong_type(name, "a boolean", kind(cursor))),
    }
}

/// Calls `parameter` with the cursor at each parameter's value, which it must read, and its name.
fn parameters(
    body: &[u8],
    max_depth: usize,
    mut parameter: impl FnMut(&mut Cursor<'_>, &str) -> Result<()>,
) -> Result<()> {
    let mut cursor = Cursor::new(body, max_depth);
    if cursor.peek().is_none() {
        return Ok(());
    }
    let mut count = 0;
    cursor.object(r#"a JSON object like {"parameters":{…}}"#, |cursor, key| {
        if key != "parameters" {
            return cursor.skip();
        }
        cursor.object("'parameters' as an object", |cursor, name| {
            check_count(cursor, "parameters", count)?;
            count += 1;
            parameter(cursor, name)
        })
    })?;
    if cursor.peek().is_some() { Err(cursor.expected("the end of the JSON")) } else { Ok(()) }
}

fn kind(cursor: &mut Cursor<'_>) -> &'static str {
    match cursor.peek() {
        None => "the end of the body",
        Some(b'"') => "a string",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(_) => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Admission;

    fn load(body: &str, room: u64) -> Result<LoadOverrides, String> {
        let mut share = Admission::new(1, room).body();
        parse_load(body.as_bytes(), 10, &mut share).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_load_brings_along_a_configuration_and_files() {
        let body =
            r#" {"more":[1],"parameters":{"config":"{\"a\":1}","file:1/model.onnx":"AQID","file:2/x":"\/\/8="}} "#;
        let read = load(body, 100).expect("valid");
        assert_eq!(read.config.as_deref(), Some(r#"{"a":1}"#));
        assert_eq!((&read.files["1/model.onnx"][..], &read.files["2/x"][..]), (&[1, 2, 3][..], &[255, 255][..]));
        assert!(load(" ", 0).expect("nothing is brought along").is_empty());
        assert!(load("{}", 0).expect("nothing is brought along").is_empty());
        let cases = [
            (r#"{"parameters":{"config":{}}}"#, "must be a string, found an object"),
            (r#"{"parameters":{"file:1/x":"%"}}"#, "'file:1/x' is not base64"),
            (r#"{"parameters":{"files":"AQID"}}"#, "unrecognized load parameter 'files'"),
            (r#"{"parameters":[]}"#, "expected 'parameters' as an object"),
            ("[]", "expected a JSON object like {\"parameters\":{…}}, found `[`"),
            ("{} x", "expected the end of the JSON"),
            (r#"{"x":[[[[[[[[[[1]]]]]]]]]]}"#, "deeper than the limit of 10"),
        ];
        for (body, part) in cases {
            let error = load(body, 100).expect_err(body);
            assert!(error.contains(part), "{body}: {error}");
        }
    }

    #[test]
    fn what_a_load_takes_beside_its_body_is_bounded() {
        let file = |length| format!(r#"{{"parameters":{{"file:1/x":"{}"}}}}"#, "A".repeat(length));
        assert_eq!(load(&file(4000), 3000).expect("fits").files["1/x"].len(), 3000);
        let error = load(&file(4004), 3000).expect_err("3 more");
        assert!(error.contains("the 3000 bytes that --max-buffered-bytes allows"), "{error}");
        let many: Vec<_> = (0..5000).map(|at| format!(r#""file:{at}":"""#)).collect();
        let error = load(&format!(r#"{{"parameters":{{{}}}}}"#, many.join(",")), 3000).expect_err("5000");
        assert!(error.contains("more than the 4096 parameters"), "{error}");
    }

    #[test]
    fn an_unload_says_whether_dependents_go_too() {
        let unload = |body: &str| parse_unload(body.as_bytes(), 10).map_err(|error| error.message().to_owned());
        assert_eq!(unload(r#"{"parameters":{"unload_dependents":true}}"#), Ok(true));
        assert_eq!(unload(""), Ok(false));
        for (body, part) in [
            (r#"{"parameters":{"unload_dependents":"true"}}"#, "must be a boolean, found a string"),
            (r#"{"parameters":{"dependents":true}}"#, "unrecognized unload parameter 'dependents'"),
        ] {
            assert!(unload(body).expect_err(body).contains(part), "{body}");
        }
    }
}

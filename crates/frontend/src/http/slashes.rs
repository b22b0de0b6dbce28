//! Models whose names hold a `/` that the client did not escape (Triton's clients do not): where such a name ends.

use http::Uri;
use http::uri::PathAndQuery;

/// What a path may go on with after a model's name.
pub(crate) struct Names {
    /// What the path begins with, `/` at its end included.
    pub(crate) prefix: &'static str,
    /// The routes behind the name, each with its `/` in front or empty; `{…}` stands for any one segment.
    pub(crate) tails: Vec<String>,
}

/// The same address with the name's slashes escaped, where `uri` is none of the routes as it stands: the name is the shortest
/// that leaves one of the tails. `None` when there is no such name, or when it holds no slash.
pub(crate) fn escaped(uri: &Uri, names: &[Names]) -> Option<Uri> {
    let path = names.iter().find_map(|names| {
        let rest = uri.path().strip_prefix(names.prefix)?;
        let end = end_of_name(rest, &names.tails)?;
        let (name, tail) = rest.split_at(end);
        name.contains('/').then(|| format!("{}{}{tail}", names.prefix, name.replace('/', "%2F")))
    })?;
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

fn end_of_name(rest: &str, tails: &[String]) -> Option<usize> {
    let ends = rest.match_indices('/').map(|(position, _)| position).chain([rest.len()]);
    ends.filter(|end| *end > 0).find(|end| tails.iter().any(|tail| is_tail(tail, &rest[*end..])))
}

fn is_tail(tail: &str, text: &str) -> bool {
    let (mut expected, mut segments) = (tail.split('/'), text.split('/'));
    loop {
        match (expected.next(), segments.next()) {
            (None, None) => return true,
            (Some(expected), Some(segment)) if expected.starts_with('{') && !segment.is_empty() => {}
            (Some(expected), Some(segment)) if expected == segment => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> [Names; 2] {
        let of =
            |prefix, tails: &[&str]| Names { prefix, tails: tails.iter().map(|tail| (*tail).to_owned()).collect() };
        let tails = ["", "/infer", "/trace/setting", "/versions/{version}", "/versions/{version}/infer"];
        [of("/v2/models/", &tails), of("/v2/repository/models/", &["/load"])]
    }

    fn escape(path: &str) -> Option<String> {
        escaped(&path.parse().expect("a path"), &names()).map(|uri| uri.to_string())
    }

    #[test]
    fn the_shortest_name_that_leaves_a_route() {
        let cases = [
            ("a/b.tar.gz/infer", "a%2Fb.tar.gz/infer"),
            ("a/b.tar.gz", "a%2Fb.tar.gz"),
            ("a/b/c/versions/3/infer?x=/y", "a%2Fb%2Fc/versions/3/infer?x=/y"),
            ("a/b/trace/setting", "a%2Fb/trace/setting"),
            ("a%2Fb/c/infer", "a%2Fb%2Fc/infer"),
            ("a/infer/infer", "a%2Finfer/infer"),
            ("a/versions/1/versions/2", "a%2Fversions%2F1/versions/2"),
            ("a/infer/b", "a%2Finfer%2Fb"),
            ("a//b/infer", "a%2F%2Fb/infer"),
            ("a/versions//infer", "a%2Fversions%2F/infer"),
        ];
        for (path, expected) in cases {
            let expected = format!("/v2/models/{expected}");
            assert_eq!(escape(&format!("/v2/models/{path}")), Some(expected), "{path}");
        }
        assert_eq!(escape("/v2/repository/models/a/b/load"), Some("/v2/repository/models/a%2Fb/load".to_owned()));
    }

    #[test]
    fn what_is_a_route_already_or_none_at_all() {
        for path in
            ["/v2/models/a/infer", "/v2/models/a/versions/x", "/v2/models/", "/v2/repository/models/a/b", "/a/b"]
        {
            assert_eq!(escape(path), None, "{path}");
        }
        assert_eq!(escape("http://host:1/v2/models/a/b/infer"), Some("http://host:1/v2/models/a%2Fb/infer".to_owned()));
    }

    proptest! {
        #[test]
        fn only_the_names_own_slashes_are_escaped(path in "/v2/models/[a-z/%.:?]{0,20}") {
            let Ok(uri) = path.parse::<Uri>() else { return Ok(()) };
            if let Some(escaped) = escaped(&uri, &names()) {
                prop_assert_eq!(escaped.path().replace("%2F", "/"), uri.path().replace("%2F", "/"));
                prop_assert!(super::escaped(&escaped, &names()).is_none());
            }
        }
    }
}

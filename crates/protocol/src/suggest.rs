//! "Did you mean …?" for names that do not exist.

/// Names that people bring from other systems, and what they mean here.
const ALIASES: [(&str, &str); 14] = [
    ("TYPE_FLOAT", "TYPE_FP32"),
    ("TYPE_FLOAT16", "TYPE_FP16"),
    ("TYPE_HALF", "TYPE_FP16"),
    ("TYPE_FLOAT32", "TYPE_FP32"),
    ("TYPE_FLOAT64", "TYPE_FP64"),
    ("TYPE_DOUBLE", "TYPE_FP64"),
    ("TYPE_BFLOAT16", "TYPE_BF16"),
    ("TYPE_BYTES", "TYPE_STRING"),
    ("TYPE_INT", "TYPE_INT32"),
    ("TYPE_LONG", "TYPE_INT64"),
    ("BYTES", "TYPE_STRING"),
    ("inputs", "input"),
    ("outputs", "output"),
    ("shape", "dims"),
];

/// How alike two names must be (Jaro-Winkler, 0 to 1) to be offered; typing errors are above, other words below.
const ALIKE: f64 = 0.84;

/// The name that was probably meant, in words to append to a message: `; did you mean `x`?`, or nothing.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match closest(given, known) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => String::new(),
    }
}

fn closest<'a>(given: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let alias = ALIASES.iter().find(|(other, _)| *other == given).map(|(_, name)| *name);
    let typed = format!("TYPE_{given}");
    let exact = known.clone().into_iter().find(|name| alias == Some(*name) || *name == typed);
    let lower = given.to_lowercase();
    exact.or_else(|| {
        let scored = known.into_iter().map(|name| (strsim::jaro_winkler(&lower, &name.to_lowercase()), name));
        scored.filter(|(score, _)| *score >= ALIKE).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, name)| name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_what_was_probably_meant() {
        let known = ["max_batch_size", "input", "name", "TYPE_FP32", "TYPE_STRING", "TYPE_UINT8"];
        let cases = [
            ("max_batchsize", Some("max_batch_size")),
            ("maxBatchSize", Some("max_batch_size")),
            ("inputs", Some("input")),
            ("TYPE_FLOAT32", Some("TYPE_FP32")),
            ("FP32", Some("TYPE_FP32")),
            ("BYTES", Some("TYPE_STRING")),
            ("type_uint8", Some("TYPE_UINT8")),
            ("zebra", None),
        ];
        for (given, expected) in cases {
            assert_eq!(closest(given, known), expected, "{given}");
        }
    }
}

//! How much of a thing a test does: little within the suite, all of it when it is asked for.

/// `long` where the environment variable `PANOPLY_LONG_TESTS` is set (to anything but nothing or 0), `short` otherwise.
#[expect(clippy::disallowed_methods, reason = "cargo hands a test no options of its own")]
pub fn effort(short: usize, long: usize) -> usize {
    let is_long = std::env::var("PANOPLY_LONG_TESTS").is_ok_and(|value| !["", "0"].contains(&value.as_str()));
    if is_long { long } else { short }
}

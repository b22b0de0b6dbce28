//! What is noted for the next start. Pure.

use std::collections::HashSet;

use repository::ResidentArchive;

/// What is in memory, what has to stay first and the rest by worth; then what was in memory before and may still come.
pub(super) fn record(by_worth: Vec<ResidentArchive>, pending: Vec<ResidentArchive>) -> Vec<ResidentArchive> {
    let here: HashSet<_> = by_worth.iter().map(|archive| archive.target.clone()).collect();
    let (kept, mut others): (Vec<_>, Vec<_>) = by_worth.into_iter().partition(|archive| archive.kept);
    others.extend(pending.into_iter().filter(|archive| !here.contains(&archive.target)));
    kept.into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use inference::TargetModel;

    use super::*;

    fn archives(names: &str) -> Vec<ResidentArchive> {
        let archive = |name: &str| ResidentArchive {
            target: TargetModel::new(name.trim_end_matches('!')).expect("valid"),
            etag: "1".into(),
            bytes: 1,
            kept: name.ends_with('!'),
        };
        names.split_whitespace().map(archive).collect()
    }

    #[test]
    fn kept_first_then_by_worth_then_what_may_still_come() {
        let cases = [
            ("", "", ""),
            ("a b c", "", "a b c"),
            ("a b! c d!", "", "b! d! a c"),
            ("a b", "b c d!", "a b c d!"),
            ("", "c a", "c a"),
        ];
        for (by_worth, pending, expected) in cases {
            assert_eq!(record(archives(by_worth), archives(pending)), archives(expected), "{by_worth} + {pending}");
        }
    }
}

//! What is noted for the next start. Pure.

use std::collections::HashSet;

use repository::ResidentArchive;

/// What has to stay, and then the rest: of each what is in memory by worth, and then what was and may still come. Nothing twice.
pub(super) fn record(
    by_worth: Vec<ResidentArchive>,
    pending: impl Iterator<Item = ResidentArchive>,
) -> Vec<ResidentArchive> {
    let mut seen = HashSet::new();
    let all = by_worth.into_iter().chain(pending).filter(|archive| seen.insert(archive.target.clone()));
    let (kept, others): (Vec<_>, Vec<_>) = all.partition(|archive| archive.kept);
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
    fn kept_first_then_by_worth_then_what_may_still_come_and_nothing_twice() {
        let cases = [
            ("", "", ""),
            ("a b c", "", "a b c"),
            ("a b! c d!", "", "b! d! a c"),
            ("a b", "b c d!", "d! a b c"),
            ("a b!", "c d! b! d!", "b! d! a c"),
            ("", "c a", "c a"),
        ];
        for (by_worth, pending, expected) in cases {
            assert_eq!(
                record(archives(by_worth), archives(pending).into_iter()),
                archives(expected),
                "{by_worth} + {pending}"
            );
        }
    }
}

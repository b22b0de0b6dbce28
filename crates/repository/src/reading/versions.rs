//! Version directories, and which of them are served.

use std::path::Path;

use inference::{Error, Result, VersionPolicy};

/// The version directories that are there, ascending: directories named by a number that does not begin with 0.
pub(super) fn present(directory: &Path) -> Result<Vec<u64>> {
    let cannot_list = |error| Error::internal(format!("cannot list {}", directory.display())).with_source(error);
    let mut versions = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(cannot_list)? {
        let entry = entry.map_err(cannot_list)?;
        let number = entry.file_name().to_str().and_then(number);
        versions.extend(number.filter(|_| entry.path().is_dir()));
    }
    versions.sort_unstable();
    Ok(versions)
}

fn number(name: &str) -> Option<u64> {
    let plain = name.bytes().all(|byte| byte.is_ascii_digit()) && !name.starts_with('0');
    if plain { name.parse().ok() } else { None }
}

/// The versions that a policy serves, ascending, of those that are there; the error holds those that it misses.
pub(super) fn select(policy: &VersionPolicy, present: &[u64]) -> Result<Vec<u64>, Vec<u64>> {
    match policy {
        VersionPolicy::All => Ok(present.to_vec()),
        VersionPolicy::Latest(count) => {
            let count = usize::try_from(*count).unwrap_or(usize::MAX);
            Ok(present[present.len().saturating_sub(count)..].to_vec())
        }
        VersionPolicy::Specific(wanted) => {
            let missing: Vec<u64> = wanted.iter().copied().filter(|version| !present.contains(version)).collect();
            if !missing.is_empty() {
                return Err(missing);
            }
            Ok(present.iter().copied().filter(|version| wanted.contains(version)).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_choose_among_what_is_there() {
        let present = [1, 2, 10];
        let cases = [
            (VersionPolicy::Latest(1), Ok(vec![10])),
            (VersionPolicy::Latest(2), Ok(vec![2, 10])),
            (VersionPolicy::Latest(9), Ok(vec![1, 2, 10])),
            (VersionPolicy::All, Ok(vec![1, 2, 10])),
            (VersionPolicy::Specific(vec![10, 1]), Ok(vec![1, 10])),
            (VersionPolicy::Specific(vec![1, 3, 4]), Err(vec![3, 4])),
        ];
        for (policy, expected) in cases {
            assert_eq!(select(&policy, &present), expected, "{policy:?}");
        }
    }

    #[test]
    fn versions_are_plain_numbers() {
        let names = ["1", "12", "0", "01", "+1", "1a", "", "99999999999999999999"];
        let numbers: Vec<_> = names.into_iter().filter_map(number).collect();
        assert_eq!(numbers, [1, 12]);
    }
}

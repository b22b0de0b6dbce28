//! The repository index of one model, as Triton prints it. Pure.

use inference::{IndexEntry, ModelState};

/// What the index tells about a model of the repositories.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'a> {
    /// The versions that serve.
    pub(super) serving: &'a [u64],
    /// The GPUs that they are on.
    pub(super) gpus: &'a [u32],
    /// The versions that its last load was to give.
    pub(super) versions: &'a [u64],
    /// A load is under way.
    pub(super) loading: bool,
    /// It was withdrawn, and requests that had it still run.
    pub(super) unloading: bool,
    /// Why its last load failed.
    pub(super) failure: Option<&'a str>,
    /// It was loaded once, and unloaded.
    pub(super) unloaded: bool,
}

/// One line for each version. A version that serves is ready whatever became of a newer load, whose failure is told as the
/// reason. A model that was never asked for has one line without a version or state.
pub(super) fn lines(name: &str, known: Known<'_>) -> Vec<IndexEntry> {
    let failure = known.failure.unwrap_or_default();
    let (state, reason) = match known {
        Known { loading: true, .. } => (ModelState::Loading, ""),
        Known { unloading: true, serving: [], .. } => (ModelState::Unloading, ""),
        Known { failure: None, unloaded: true, .. } => (ModelState::Unavailable, "unloaded"),
        _ => (ModelState::Unavailable, failure),
    };
    let entry = |version, state, reason: &str| {
        let (name, reason) = (name.to_owned(), reason.to_owned());
        IndexEntry { name, version, state, reason, gpus: Vec::new() }
    };
    let ready =
        |version: &u64| IndexEntry { gpus: known.gpus.to_vec(), ..entry(Some(*version), ModelState::Ready, failure) };
    let mut lines: Vec<_> = known.serving.iter().map(ready).collect();
    let is_told = known.serving.is_empty() || known.loading || known.failure.is_some();
    let others = known.versions.iter().filter(|version| is_told && !known.serving.contains(version));
    lines.extend(others.map(|version| entry(Some(*version), state, reason)));
    if lines.is_empty() {
        lines.push(entry(None, state, reason));
    }
    lines.sort_by_key(|line| line.version);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_as_triton_tells_them() {
        let none = Known::default();
        let cases = [
            (none, "- UNAVAILABLE "),
            (Known { serving: &[1, 3], versions: &[1, 3], ..none }, "1 READY , 3 READY "),
            (Known { versions: &[1], failure: Some("bad"), ..none }, "1 UNAVAILABLE bad"),
            (Known { failure: Some("typo"), ..none }, "- UNAVAILABLE typo"),
            (Known { versions: &[1], loading: true, ..none }, "1 LOADING "),
            (Known { versions: &[1], unloading: true, unloaded: true, ..none }, "1 UNLOADING "),
            (Known { versions: &[1], unloaded: true, ..none }, "1 UNAVAILABLE unloaded"),
            // A newer version failed, or is on its way: the old one serves.
            (Known { serving: &[1], versions: &[2], failure: Some("bad"), ..none }, "1 READY bad, 2 UNAVAILABLE bad"),
            (Known { serving: &[1], versions: &[2], loading: true, ..none }, "1 READY , 2 LOADING "),
            (Known { serving: &[2], versions: &[2], unloading: true, ..none }, "2 READY "),
        ];
        for (known, expected) in cases {
            let version = |line: &IndexEntry| line.version.map_or("-".to_owned(), |version| version.to_string());
            let shown = |line: &IndexEntry| format!("{} {} {}", version(line), line.state.name(), line.reason);
            let shown: Vec<_> = lines("m", known).iter().map(shown).collect();
            assert_eq!(shown.join(", "), expected, "{known:?}");
        }
    }
}

//! Shows what a folder holds, in a bounded number of lines, for error messages.

use std::path::Path;

use walkdir::WalkDir;

/// The most entries that are shown.
const MOST_ENTRIES: usize = 40;
/// Deeper entries are not shown; a model's own files are at depth 3.
const DEEPEST: usize = 4;

/// The tree below `root`, one indented line per entry, sorted; directories end with `/`.
pub(super) fn render(root: &Path) -> String {
    let walk = WalkDir::new(root).min_depth(1).max_depth(DEEPEST).sort_by_file_name();
    let mut lines: Vec<String> = Vec::new();
    for entry in walk.into_iter().filter_map(Result::ok).take(MOST_ENTRIES + 1) {
        if lines.len() == MOST_ENTRIES {
            lines.push("  … and more".to_owned());
            break;
        }
        let slash = if entry.file_type().is_dir() { "/" } else { "" };
        lines.push(format!("{}{}{slash}", "  ".repeat(entry.depth()), entry.file_name().to_string_lossy()));
    }
    if lines.is_empty() { "  (nothing)".to_owned() } else { lines.join("\n") }
}

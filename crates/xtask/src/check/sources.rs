//! The rules for source files: each says what it is for, none is too long, none points outside the repository.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Longer than this, a file holds more than one thing.
const MOST_LINES: usize = 500;

/// Folders that a clone does not have. In pieces, so that this file does not mention them.
const OUTSIDE: [&str; 2] = [concat!("..", "/shared"), concat!("/work", "/shared")];

/// Checks every file that git tracks or would track.
pub(super) fn check() -> Result<()> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace::root())
        .output()
        .context("cannot start git")?;
    if !listed.status.success() {
        bail!("git cannot list the files: {}", String::from_utf8_lossy(&listed.stderr).trim());
    }
    let names = String::from_utf8(listed.stdout).context("a file's name is not UTF-8")?;
    let names = names.split('\0').filter(|name| !name.is_empty());
    let problems: Vec<_> =
        names.filter_map(|name| Some((name, read(name)?))).flat_map(|(n, c)| problems(n, &c)).collect();
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// `None` for a file that is listed but was deleted.
fn read(name: &str) -> Option<Vec<u8>> {
    fs::read(workspace::root().join(name)).ok()
}

fn problems(name: &str, content: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(content);
    let mut found = Vec::new();
    for folder in OUTSIDE {
        if let Some(line) = text.lines().position(|line| line.contains(folder)) {
            found.push(format!("{name}:{}: refers to {folder}, which a clone does not have", line + 1));
        }
    }
    if name.ends_with(".rs") {
        if !text.starts_with("//!") {
            found.push(format!("{name}:1: does not open with `//!` and a sentence on what the file is for"));
        }
        let lines = text.lines().count();
        if lines > MOST_LINES {
            found.push(format!("{name}: {lines} lines; move something out of it ({MOST_LINES} is the limit)"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_what_it_is_for() {
        assert!(problems("a.rs", b"//! Fine.\n").is_empty());
        assert!(problems("README.md", b"no rule about this\n").is_empty());
        assert!(problems("a.rs", b"use x;\n")[0].starts_with("a.rs:1: does not open with"));
        let long = format!("//! Long.\n{}", "x\n".repeat(MOST_LINES));
        assert!(problems("a.rs", long.as_bytes())[0].contains("501 lines"));
        let pointing = format!("line\nsee {}/DESIGN.md\n", OUTSIDE[0]);
        assert!(problems("notes.md", pointing.as_bytes())[0].starts_with("notes.md:2: refers to"));
    }
}

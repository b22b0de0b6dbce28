//! One entry of a tar, and the rules that its name must obey. Pure.

use crate::failure::{Failure, Outcome};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Directory,
    HardLink,
    Symlink,
    /// Something that no model needs, by its name.
    Other(&'static str),
}

/// An entry's header, long names and PAX records applied.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) kind: EntryKind,
    /// What a link points to; empty otherwise.
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) size: u64,
}

impl Entry {
    /// The name for messages, whatever its bytes are.
    pub(super) fn display_name(&self) -> String {
        let mut name = String::from_utf8_lossy(&self.name).escape_debug().to_string();
        if let Some((end, _)) = name.char_indices().nth(200) {
            name.truncate(end);
            name.push('…');
        }
        name
    }
}

/// The longest name of one file that Linux file systems take.
const MAX_NAME_LENGTH: usize = 255;

/// An entry's place in the tree: its path components, none for the root itself. `./` and doubled or trailing slashes go.
pub(super) fn components(name: &[u8], max_length: usize) -> Outcome<Vec<String>> {
    let name = std::str::from_utf8(name).map_err(|_| Failure::archive("its name is not UTF-8"))?;
    if name.len() > max_length {
        return Err(Failure::archive(format!("its name is longer than the limit of {max_length} bytes")));
    }
    if name.is_empty() {
        return Err(Failure::archive("its name is empty"));
    }
    if name.starts_with('/') {
        return Err(Failure::archive("its path is absolute; pack with relative paths"));
    }
    if name.chars().any(char::is_control) {
        return Err(Failure::archive("its name holds a control character"));
    }
    let parts: Vec<String> = name.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect();
    if parts.iter().any(|part| part == "..") {
        return Err(Failure::archive("its path has a '..'"));
    }
    if parts.iter().any(|part| part.len() > MAX_NAME_LENGTH) {
        return Err(Failure::archive(format!("a part of its name is longer than {MAX_NAME_LENGTH} bytes")));
    }
    Ok(parts)
}

/// A symbolic link's target: relative, printable, not too long. Where it leads is the tree's business.
pub(super) fn symlink_target(link: &[u8], max_length: usize) -> Outcome<String> {
    let link = std::str::from_utf8(link).map_err(|_| Failure::archive("its link's target is not UTF-8"))?;
    if link.is_empty() {
        return Err(Failure::archive("its link has no target"));
    }
    if link.len() > max_length {
        return Err(Failure::archive(format!("its link's target is longer than the limit of {max_length} bytes")));
    }
    if link.starts_with('/') {
        return Err(Failure::archive(format!("it links to the absolute path '{link}'")));
    }
    if link.chars().any(char::is_control) {
        return Err(Failure::archive("its link's target holds a control character"));
    }
    Ok(link.to_owned())
}

/// The bits above `rwxrwxrwx` that no file of a model may have.
pub(super) fn check_mode(mode: u32) -> Outcome<()> {
    let refused: Vec<&str> = [(0o4000, "setuid"), (0o2000, "setgid"), (0o1000, "sticky")]
        .into_iter()
        .filter(|(bit, _)| mode & bit != 0)
        .map(|(_, name)| name)
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(Failure::archive(format!("it has the {} bit (mode {mode:o})", refused.join(" and "))))
}

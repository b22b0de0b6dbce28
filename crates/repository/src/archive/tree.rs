//! Decides what each entry of an archive may become on disk. Pure: it knows the tree so far and returns what to make.

use std::collections::BTreeMap;

use super::entry::{Entry, EntryKind, check_mode, components, symlink_target};
use super::limits::UnpackLimits;
use crate::failure::{Failure, Outcome};

/// What to make for an entry. Paths are relative to the tree's root, clean, and never lead through a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    File {
        path: String,
        executable: bool,
    },
    /// Nothing beyond the directories.
    Directory,
    HardLink {
        path: String,
        existing: String,
    },
    Symlink {
        path: String,
        target: String,
    },
}

/// Directories to make first, outermost first, and then the step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) directories: Vec<String>,
    pub(super) step: Step,
}

enum Node {
    File,
    Directory,
    Symlink(String),
}

/// The tree so far.
pub(super) struct Tree {
    limits: UnpackLimits,
    nodes: BTreeMap<String, Node>,
    file_bytes: u64,
    files: u64,
}

/// Links that lead through more links than this lead in a circle.
const MAX_LINKS_FOLLOWED: usize = 40;

impl Tree {
    pub(super) fn new(limits: &UnpackLimits) -> Self {
        Tree { limits: *limits, nodes: BTreeMap::new(), file_bytes: 0, files: 0 }
    }

    /// Judges the next entry and, when it is fine, counts it in.
    pub(super) fn admit(&mut self, entry: &Entry) -> Outcome<Plan> {
        if let EntryKind::Other(what) = entry.kind {
            return Err(Failure::archive(format!(
                "it is {what}; only files, directories and links inside are allowed"
            )));
        }
        if entry.mode == u32::MAX {
            return Err(Failure::archive("its mode is no number"));
        }
        check_mode(entry.mode)?;
        let parts = components(&entry.name, self.limits.max_path_length)?;
        let path = parts.join("/");
        let mut directories = self.missing_parents(&parts)?;
        let step = match entry.kind {
            EntryKind::Directory => {
                match self.nodes.get(&path) {
                    _ if path.is_empty() => {}
                    Some(Node::Directory) => {}
                    Some(_) => return Err(Failure::archive("it appears twice, once as a directory")),
                    None => directories.push(path),
                }
                Step::Directory
            }
            _ if path.is_empty() => return Err(Failure::archive("it has the name of the archive's root")),
            _ if self.nodes.contains_key(&path) => return Err(Failure::archive("it appears twice")),
            EntryKind::File => self.admit_file(entry, path)?,
            EntryKind::HardLink => self.admit_hard_link(entry, path)?,
            _ => self.admit_symlink(entry, &parts, path)?,
        };
        for directory in &directories {
            self.nodes.insert(directory.clone(), Node::Directory);
        }
        if self.nodes.len() as u64 > self.limits.max_files {
            let limit = self.limits.max_files;
            return Err(Failure::archive(format!(
                "it is one more than the limit of {limit} files, directories and links"
            )));
        }
        Ok(Plan { directories, step })
    }

    /// Judges the whole tree: something must be in it, and now that every link is known, none may lead out of it.
    pub(super) fn finish(&self) -> Outcome<()> {
        if self.files == 0 {
            return Err(Failure::archive("it holds no files"));
        }
        for (path, node) in &self.nodes {
            if let Node::Symlink(target) = node {
                self.follow(path, target).map_err(|failure| failure.context(format!("entry '{path}'")))?;
            }
        }
        Ok(())
    }

    fn admit_file(&mut self, entry: &Entry, path: String) -> Outcome<Step> {
        let limit = self.limits.max_unpacked_bytes;
        self.file_bytes = self.file_bytes.saturating_add(entry.size);
        if self.file_bytes > limit {
            return Err(Failure::archive(format!(
                "with its {} bytes the archive unpacks to more than the limit of {limit} bytes",
                entry.size
            )));
        }
        self.files += 1;
        self.nodes.insert(path.clone(), Node::File);
        Ok(Step::File { path, executable: entry.mode & 0o100 != 0 })
    }

    fn admit_hard_link(&mut self, entry: &Entry, path: String) -> Outcome<Step> {
        let existing = components(&entry.link, self.limits.max_path_length)
            .map_err(|failure| failure.context("what it links to"))?
            .join("/");
        if !matches!(self.nodes.get(&existing), Some(Node::File)) {
            return Err(Failure::archive(format!(
                "it is a hard link to '{existing}', which is no file that came before it"
            )));
        }
        self.nodes.insert(path.clone(), Node::File);
        Ok(Step::HardLink { path, existing })
    }

    fn admit_symlink(&mut self, entry: &Entry, parts: &[String], path: String) -> Outcome<Step> {
        let target = symlink_target(&entry.link, self.limits.max_path_length)?;
        let mut depth = parts.len() - 1;
        for part in target.split('/') {
            match part {
                "" | "." => {}
                ".." => depth = depth.checked_sub(1).ok_or_else(|| leaves(&target))?,
                _ => depth += 1,
            }
        }
        self.nodes.insert(path.clone(), Node::Symlink(target.clone()));
        Ok(Step::Symlink { path, target })
    }

    /// The directories above a path that are not there yet. Anything else above it would be written through.
    fn missing_parents(&self, parts: &[String]) -> Outcome<Vec<String>> {
        let mut missing = Vec::new();
        let mut path = String::new();
        for part in parts.iter().take(parts.len().saturating_sub(1)) {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
            match self.nodes.get(&path) {
                Some(Node::Directory) => {}
                None => missing.push(path.clone()),
                Some(Node::File) => return Err(Failure::archive(format!("'{path}' above it is a file"))),
                Some(Node::Symlink(target)) => {
                    return Err(Failure::archive(format!(
                        "it would be written through the link '{path}' to '{target}'"
                    )));
                }
            }
        }
        Ok(missing)
    }

    /// Walks a link as the kernel would, by the tree's own nodes.
    fn follow(&self, path: &str, target: &str) -> Outcome<()> {
        let mut here: Vec<String> = path.split('/').map(str::to_owned).collect();
        here.pop();
        let mut ahead: Vec<String> = target.split('/').rev().map(str::to_owned).collect();
        let mut followed = 0;
        while let Some(part) = ahead.pop() {
            match part.as_str() {
                "" | "." => {}
                ".." => drop(here.pop().ok_or_else(|| leaves(target))?),
                _ => {
                    here.push(part);
                    let Some(Node::Symlink(next)) = self.nodes.get(&here.join("/")) else { continue };
                    here.pop();
                    ahead.extend(next.split('/').rev().map(str::to_owned));
                    followed += 1;
                    if followed > MAX_LINKS_FOLLOWED {
                        return Err(Failure::archive(format!("its link to '{target}' leads in a circle")));
                    }
                }
            }
        }
        Ok(())
    }
}

fn leaves(target: &str) -> Failure {
    Failure::archive(format!("it links to '{target}', which leaves the archive"))
}

//! Carries out what [`super::tree`] decides: reads an archive to its end and makes its tree on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use super::gunzip::Gunzip;
use super::limits::UnpackLimits;
use super::source::Source;
use super::tar_reader::TarReader;
use super::tree::{Plan, Step, Tree};
use super::write::{Room, retry_when_full, write_all};
use crate::failure::{Failure, Outcome};

const BUFFER_BYTES: usize = 256 * 1024;

/// What a file system takes for an entry besides its content: the rest of its last block, its inode, its name.
const ENTRY_BYTES: u64 = 4096;

/// What came out of an archive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unpacked {
    /// Bytes that the tree takes on disk.
    pub(crate) bytes: u64,
}

/// Unpacks a whole archive into `root`, which must not exist yet. When this returns, every byte of the archive was read,
/// its length and checksum were right, and each of its entries is in the tree. After an error the tree is worthless.
pub(crate) fn unpack(
    source: &mut Source,
    root: &Path,
    limits: &UnpackLimits,
    room: &mut dyn Room,
) -> Outcome<Unpacked> {
    let mut unpacker = Unpacker { root, room, buffer: vec![0; BUFFER_BYTES], bytes: 0 };
    unpacker.take(ENTRY_BYTES)?;
    unpacker.make(|| fs::create_dir(root))?;
    let mut reader = TarReader::new(Gunzip::new(source, limits)?);
    let mut tree = Tree::new(limits);
    while let Some(entry) = reader.next_entry()? {
        tree.admit(&entry)
            .and_then(|plan| unpacker.carry_out(plan, &mut reader))
            .map_err(|failure| failure.context(format_args!("entry '{}'", entry.display_name())))?;
    }
    tree.finish()?;
    Ok(Unpacked { bytes: unpacker.bytes })
}

struct Unpacker<'a> {
    root: &'a Path,
    room: &'a mut dyn Room,
    buffer: Vec<u8>,
    bytes: u64,
}

impl Unpacker<'_> {
    fn carry_out(&mut self, plan: Plan, reader: &mut TarReader<impl Read>) -> Outcome<()> {
        let root = self.root;
        for directory in &plan.directories {
            self.take(ENTRY_BYTES)?;
            self.make(|| fs::create_dir(root.join(directory)))?;
        }
        match plan.step {
            Step::Directory => return Ok(()),
            Step::File { path, executable } => self.write_file(&root.join(path), executable, reader)?,
            Step::HardLink { path, existing } => {
                self.make(|| fs::hard_link(root.join(&existing), root.join(&path)))?;
            }
            Step::Symlink { path, target } => self.make(|| symlink(&target, root.join(&path)))?,
        }
        self.take(ENTRY_BYTES)
    }

    fn write_file(&mut self, path: &Path, executable: bool, reader: &mut TarReader<impl Read>) -> Outcome<()> {
        let mode = if executable { 0o755 } else { 0o644 };
        // `create_new` neither follows a link nor opens what exists.
        let mut file: File = self.make(|| OpenOptions::new().write(true).create_new(true).mode(mode).open(path))?;
        loop {
            let count = reader.read_body(&mut self.buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.take(count as u64)?;
            write_all(self.room, &mut file, &self.buffer[..count])?;
        }
    }

    fn take(&mut self, bytes: u64) -> Outcome<()> {
        self.bytes += bytes;
        self.room.take(bytes)
    }

    fn make<T>(&mut self, operation: impl FnMut() -> io::Result<T>) -> Outcome<T> {
        retry_when_full(self.room, operation)?.map_err(|error| Failure::disk("unpack an archive", error))
    }
}

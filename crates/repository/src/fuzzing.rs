//! What fuzzing calls: the reader of archives. Not for other use.

use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::archive::{Room, Source, UnpackLimits, unpack};
use crate::failure::{Failure, Outcome};

/// As much as there may be.
struct Endless;

impl Room for Endless {
    fn take(&mut self, _: u64) -> Outcome<()> {
        Ok(())
    }

    fn disk_is_full(&mut self) -> Outcome<()> {
        Err(Failure::disk("unpack an archive", io::ErrorKind::StorageFull.into()))
    }
}

/// Unpacks an archive into `root`, which must not exist yet; whether it was accepted.
pub fn archive(bytes: &[u8], root: &Path) -> bool {
    let limits =
        UnpackLimits { max_files: 64, max_unpacked_bytes: 1 << 20, max_path_length: 200, ..UnpackLimits::default() };
    let (sender, chunks) = tokio::sync::mpsc::channel(2);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for part in [first, second] {
        sender.try_send(Ok(Bytes::copy_from_slice(part))).expect("invariant: there is room for both parts");
    }
    drop(sender);
    let size = bytes.len() as u64;
    unpack(&mut Source::new(chunks, size, None), root, &limits, &mut Endless).is_ok()
}

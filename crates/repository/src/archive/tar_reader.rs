//! Walks a tar, entry by entry, and hides nothing: the `tar` crate, left alone, skips or rewrites entries silently and
//! takes a missing end for the end. Only its header fields are used here.

use std::io::Read;

use tar::{EntryType, Header};

use super::entry::{Entry, EntryKind};
use super::pax::PaxRecords;
use crate::failure::{Failure, Outcome};

const BLOCK: usize = 512;

/// GNU long names and PAX headers may be this long; they are held in memory.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// Reads entries from a decompressed stream whose errors carry [`Failure`]s.
pub(super) struct TarReader<R> {
    reader: R,
    /// Bytes of the current entry's body that have not been read.
    body: u64,
    /// Bytes between the body's end and the next block.
    padding: u64,
    entries: u64,
}

/// What long-name and PAX headers say about the entry that follows them.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(reader: R) -> Self {
        TarReader { reader, body: 0, padding: 0, entries: 0 }
    }

    /// The next entry; the rest of the one before is skipped. After the last entry, everything up to the stream's end is
    /// read and must be zeros.
    pub(super) fn next_entry(&mut self) -> Outcome<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_body()?;
            let mut block = [0; BLOCK];
            match self.fill(&mut block)? {
                BLOCK => {}
                0 if self.entries == 0 => return Err(Failure::archive("it holds no entries")),
                _ => return Err(Failure::archive("it is truncated: the tar ends without its end marker")),
            }
            if block.iter().all(|byte| *byte == 0) {
                self.check_end()?;
                return Ok(None);
            }
            let header = self.header(&block)?;
            self.begin_body(extensions.size.take().map_or_else(|| size_of_body(header), Ok)?)?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.name = Some(self.long_name()?),
                EntryType::GNULongLink => extensions.link = Some(self.long_name()?),
                EntryType::XHeader => self.apply_pax(&mut extensions)?,
                EntryType::XGlobalHeader => {}
                _ => {
                    self.entries += 1;
                    return Ok(Some(self.entry(header, extensions)));
                }
            }
        }
    }

    /// Reads some of the current entry's content; 0 at its end.
    pub(super) fn read_body(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let want = buffer.len().min(usize::try_from(self.body).unwrap_or(usize::MAX));
        let count = self.fill(&mut buffer[..want])?;
        if count < want {
            return Err(Failure::archive("it is truncated: the tar ends within the content"));
        }
        self.body -= count as u64;
        Ok(count)
    }

    fn header<'b>(&self, block: &'b [u8; BLOCK]) -> Outcome<&'b Header> {
        let header = Header::from_byte_slice(block);
        // The checksum counts its own eight bytes as spaces.
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let field: u32 = block[148..156].iter().map(|byte| u32::from(*byte)).sum();
        if header.cksum().ok() == Some(sum - field + 8 * u32::from(b' ')) {
            return Ok(header);
        }
        Err(Failure::archive(match self.entries {
            0 => "the compressed data is not a tar".to_owned(),
            count => format!("it is corrupt: the tar header after {count} entries has a wrong checksum"),
        }))
    }

    fn entry(&self, header: &Header, extensions: Extensions) -> Entry {
        let name = extensions.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extensions.link.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        let kind = match header.entry_type() {
            // Before POSIX, a directory was a file with a slash at its end.
            EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => EntryKind::Directory,
            EntryType::Regular | EntryType::Continuous => EntryKind::File,
            EntryType::Directory => EntryKind::Directory,
            EntryType::Link => EntryKind::HardLink,
            EntryType::Symlink => EntryKind::Symlink,
            EntryType::Char => EntryKind::Other("a character device"),
            EntryType::Block => EntryKind::Other("a block device"),
            EntryType::Fifo => EntryKind::Other("a named pipe"),
            EntryType::GNUSparse => EntryKind::Other("a sparse file (pack without --sparse)"),
            _ => EntryKind::Other("of a kind that tar does not define"),
        };
        // What is no number here cannot be a mode that is refused for its bits, but must not pass for a harmless one.
        let mode = header.mode().unwrap_or(u32::MAX);
        Entry { name, kind, link: link.unwrap_or_default(), mode, size: self.body }
    }

    fn apply_pax(&mut self, extensions: &mut Extensions) -> Outcome<()> {
        let records = PaxRecords::parse(&self.extension()?)?;
        if records.sparse {
            let name = records.path.unwrap_or_default();
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(
                Failure::archive("it is a sparse file (pack without --sparse)").context(format!("entry '{name}'"))
            );
        }
        extensions.name = records.path.or(extensions.name.take());
        extensions.link = records.link.or(extensions.link.take());
        // Kept until the header that it is about: extension headers in between have sizes of their own.
        self.skip_body()?;
        extensions.size = records.size;
        Ok(())
    }

    fn long_name(&mut self) -> Outcome<Vec<u8>> {
        let mut name = self.extension()?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn extension(&mut self) -> Outcome<Vec<u8>> {
        if self.body > MAX_EXTENSION_BYTES {
            return Err(Failure::archive(format!("a long name or PAX header has {} bytes", self.body)));
        }
        let mut data = vec![0; usize::try_from(self.body).expect("invariant: bounded above")];
        self.read_body(&mut data)?;
        Ok(data)
    }

    fn begin_body(&mut self, size: u64) -> Outcome<()> {
        let blocks = size.checked_next_multiple_of(BLOCK as u64);
        let blocks = blocks.ok_or_else(|| Failure::archive("an entry's size is not a possible number"))?;
        (self.body, self.padding) = (size, blocks - size);
        Ok(())
    }

    fn skip_body(&mut self) -> Outcome<()> {
        let mut scratch = [0; 8 * BLOCK];
        while self.read_body(&mut scratch)? > 0 {}
        self.body = std::mem::take(&mut self.padding);
        while self.read_body(&mut scratch)? > 0 {}
        Ok(())
    }

    /// One block of zeros has been read, which ends a tar; a second one and padding may follow, and nothing else.
    fn check_end(&mut self) -> Outcome<()> {
        let mut scratch = [0; 8 * BLOCK];
        loop {
            let count = self.fill(&mut scratch)?;
            if scratch[..count].iter().any(|byte| *byte != 0) {
                return Err(Failure::archive("something follows the tar's end marker"));
            }
            if count < scratch.len() {
                return Ok(());
            }
        }
    }

    /// Reads until the buffer is full or the stream ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) => {
                    return Err(Failure::carried_by(error)
                        .unwrap_or_else(|error| Failure::archive(format!("it cannot be read: {error}"))));
                }
            }
        }
        Ok(filled)
    }
}

/// How many bytes follow a header. Links and devices have none, whatever their size field says.
fn size_of_body(header: &Header) -> Outcome<u64> {
    match header.entry_type() {
        EntryType::Link | EntryType::Symlink | EntryType::Char | EntryType::Block | EntryType::Fifo => Ok(0),
        EntryType::Directory => Ok(0),
        _ => header.entry_size().map_err(|error| Failure::archive(format!("an entry's size is unreadable: {error}"))),
    }
}

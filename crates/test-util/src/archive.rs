//! Builds model archives for tests: good ones, and every kind of bad one. Headers are written as given, with nothing
//! checked or cleaned up.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

/// Collects the entries of a tar.
#[derive(Clone, Debug, Default)]
pub struct ArchiveBuilder {
    tar: Vec<u8>,
}

/// The longest name that fits into a header.
const HEADER_NAME_BYTES: usize = 100;

impl ArchiveBuilder {
    /// No entries yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A file with mode 0644.
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.file_with_mode(path, content, 0o644)
    }

    /// A file with any mode, setuid bits included.
    #[must_use]
    pub fn file_with_mode(self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        self.entry(EntryType::Regular, path, "", mode, content.as_ref())
    }

    /// A directory.
    #[must_use]
    pub fn directory(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", 0o755, b"")
    }

    /// A symbolic link, wherever it leads.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, 0o777, b"")
    }

    /// A hard link to another entry, whether that exists or not.
    #[must_use]
    pub fn hard_link(self, path: &str, existing: &str) -> Self {
        self.entry(EntryType::Link, path, existing, 0o644, b"")
    }

    /// An entry of any type: devices, pipes, sparse files.
    #[must_use]
    pub fn entry(mut self, kind: EntryType, path: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        for (name, extension) in [(path, EntryType::GNULongName), (link, EntryType::GNULongLink)] {
            if name.len() > HEADER_NAME_BYTES {
                let mut name = name.as_bytes().to_vec();
                name.push(0);
                self = self.raw(&header(extension, "././@LongLink", "", 0o644, name.len()), &name);
            }
        }
        self.raw(&header(kind, path, link, mode, content.len()), content)
    }

    /// A PAX header for the entry that follows.
    #[must_use]
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            // The length counts its own digits.
            let length = (1..).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
            let length = length.expect("invariant: some number of digits fits");
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.raw(&header(EntryType::XHeader, "PaxHeaders/x", "", 0o644, body.len()), &body)
    }

    /// A header as it is, and a body padded to whole blocks.
    #[must_use]
    pub fn raw(mut self, header: &Header, body: &[u8]) -> Self {
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(body);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        self
    }

    /// The tar without its end marker.
    pub fn unterminated_tar(self) -> Vec<u8> {
        self.tar
    }

    /// The tar.
    pub fn tar(mut self) -> Vec<u8> {
        self.tar.resize(self.tar.len() + 1024, 0);
        self.tar
    }

    /// The archive: `.tar.gz`.
    pub fn gzip(self) -> Vec<u8> {
        gzip(&self.tar())
    }
}

/// A header with a right checksum around whatever is given.
pub fn header(kind: EntryType, path: &str, link: &str, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    let old = header.as_old_mut();
    for (field, text) in [(&mut old.name, path), (&mut old.linkname, link)] {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text.as_bytes()[..length]);
    }
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_cksum();
    header
}

/// Compresses bytes as one gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("invariant: writing to memory succeeds")
}

//! Archives as a target: tars that are packed after they were changed, since the checksums of what is packed already would
//! catch nearly every change.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use test_util::archive::ArchiveBuilder;

/// The bytes of a tar's blocks.
const BLOCK: usize = 512;
/// Where a header says that it is one, and where its checksum stands.
const MAGIC: std::ops::Range<usize> = 257..262;
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Packs a tar, with its headers' checksums put right, and unpacks it; whether it was accepted. Where its last byte is odd, a
/// bit is flipped after packing.
///
/// # Panics
/// Where something was made outside of its folder.
pub(crate) fn tar(bytes: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let accepted = repository::fuzzing::archive(&packed(bytes), &folder.path().join("root"));
    let made = fs::read_dir(folder.path()).expect("readable").count();
    assert!(made <= 1, "{made} entries beside the archive's root");
    links_stay_inside(&folder.path().join("root"));
    accepted
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut tar = bytes.to_vec();
    for block in tar.chunks_exact_mut(BLOCK).filter(|block| &block[MAGIC] == b"ustar") {
        block[CHECKSUM].fill(b' ');
        let sum: u32 = block.iter().copied().map(u32::from).sum();
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let mut packed = gzip(&tar);
    if let Some(last) = bytes.last().filter(|last| *last % 2 == 1) {
        let place = usize::from(*last) * packed.len() / 256;
        packed[place] ^= 1 << (last % 8);
    }
    packed
}

/// Every link below `root` leads to something below it, or nowhere.
fn links_stay_inside(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries {
        let path = entry.expect("readable").path();
        let kind = fs::symlink_metadata(&path).expect("it is there").file_type();
        if kind.is_dir() {
            links_stay_inside(&path);
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).expect("a link");
            assert!(target.is_relative(), "{} leads to {}", path.display(), target.display());
        }
    }
}

pub(crate) fn tars() -> Vec<Vec<u8>> {
    let config = "backend: \"identity\"";
    let plain = ArchiveBuilder::new().file("m/config.pbtxt", config).directory("m/1");
    let long = ArchiveBuilder::new().pax(&[("path", b"m/1/model.onnx".as_slice())]).file("x", "x");
    vec![plain.file("m/1/x", "abc").tar(), long.tar()]
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes everything")
}

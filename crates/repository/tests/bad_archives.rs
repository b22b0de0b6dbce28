//! Every kind of bad archive is refused with a message that names the entry and says why, and leaves nothing behind.

mod setup;

use inference::ErrorKind;
use repository::UnpackLimits;
use setup::Setup;
use tar::EntryType;
use test_util::archive::{ArchiveBuilder, gzip, header};

fn with_model() -> ArchiveBuilder {
    ArchiveBuilder::new().directory("m").file("m/config.pbtxt", "backend: \"identity\"")
}

/// What is in an archive, and what its refusal must say.
type Case = (&'static str, Vec<u8>, &'static [&'static str]);

fn bad_paths_and_links() -> Vec<Case> {
    let long = "d/".repeat(600) + "f";
    let name = "n".repeat(256);
    let through = || with_model().symlink("s", "m");
    vec![
        ("absolute path", with_model().file("/etc/passwd", "x").gzip(), &["entry '/etc/passwd'", "absolute"]),
        ("climbing path", with_model().file("m/../../x", "x").gzip(), &["entry 'm/../../x'", "'..'"]),
        (
            "absolute link",
            with_model().symlink("m/l", "/etc/passwd").gzip(),
            &["entry 'm/l'", "absolute path '/etc/passwd'"],
        ),
        ("leaving link", with_model().symlink("m/l", "../../x").gzip(), &["entry 'm/l'", "leaves the archive"]),
        (
            "link that leaves by way of another link",
            with_model().directory("a/b").symlink("a/b/s", "../..").symlink("t", "a/b/s/../x").gzip(),
            &["entry 't'", "leaves the archive"],
        ),
        ("circle of links", with_model().symlink("a", "b").symlink("b", "a").gzip(), &["entry 'a'", "in a circle"]),
        ("file through a link", through().file("s/x", "x").gzip(), &["entry 's/x'", "through the link 's'"]),
        ("file over a link", through().file("s", "x").gzip(), &["entry 's'", "appears twice"]),
        ("directory over a link", through().directory("s").gzip(), &["entry 's'", "appears twice"]),
        ("hard link out", with_model().hard_link("m/h", "/etc/passwd").gzip(), &["entry 'm/h'", "absolute"]),
        ("climbing hard link", with_model().hard_link("m/h", "../x").gzip(), &["entry 'm/h'", "'..'"]),
        (
            "hard link to nothing",
            with_model().hard_link("m/h", "m/x").gzip(),
            &["entry 'm/h'", "no file that came before"],
        ),
        ("hard link to a link", through().hard_link("h", "s").gzip(), &["entry 'h'", "no file that came before"]),
        (
            "file below a file",
            with_model().file("m/config.pbtxt/x", "").gzip(),
            &["'m/config.pbtxt' above it is a file"],
        ),
        ("twice", with_model().file("m/config.pbtxt", "").gzip(), &["entry 'm/config.pbtxt'", "appears twice"]),
        ("long path", with_model().file(&long, "").gzip(), &["entry 'd/d/", "longer than the limit of 1024"]),
        ("long name", with_model().file(&name, "").gzip(), &["entry 'nnn", "longer than 255"]),
        ("control character", with_model().file("m/a\nb", "").gzip(), &["entry 'm/a\\nb'", "control character"]),
        ("PAX path", with_model().pax(&[("path", b"/abs")]).file("m/x", "").gzip(), &["entry '/abs'", "absolute"]),
        ("PAX link", with_model().pax(&[("linkpath", b"/abs")]).symlink("l", "m").gzip(), &["entry 'l'", "'/abs'"]),
    ]
}

fn bad_kinds_and_modes() -> Vec<Case> {
    let odd = |kind| with_model().entry(kind, "m/odd", "", 0o644, b"").gzip();
    vec![
        ("character device", odd(EntryType::Char), &["entry 'm/odd'", "a character device"]),
        ("block device", odd(EntryType::Block), &["entry 'm/odd'", "a block device"]),
        ("pipe", odd(EntryType::Fifo), &["entry 'm/odd'", "a named pipe"]),
        ("sparse file", odd(EntryType::GNUSparse), &["entry 'm/odd'", "sparse"]),
        ("PAX sparse file", with_model().pax(&[("GNU.sparse.major", b"1")]).file("m/x", "").gzip(), &["sparse"]),
        ("unknown kind", odd(EntryType::new(b'Z')), &["entry 'm/odd'", "does not define"]),
        ("setuid", with_model().file_with_mode("m/x", "", 0o4755).gzip(), &["entry 'm/x'", "setuid bit (mode 4755)"]),
        ("setgid", with_model().file_with_mode("m/x", "", 0o2755).gzip(), &["entry 'm/x'", "setgid"]),
        ("sticky", with_model().entry(EntryType::Directory, "t", "", 0o1777, b"").gzip(), &["entry 't'", "sticky"]),
    ]
}

fn broken_streams() -> Vec<Case> {
    let noise: Vec<u8> = (0..100_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let good = with_model().file("m/1/noise", &noise).gzip();
    let cut = good[..good.len() / 2].to_vec();
    let mut trailer_cut = good.clone();
    trailer_cut.truncate(good.len() - 4);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 0x55;
    let mut wrong_crc = good.clone();
    let crc = good.len() - 8;
    wrong_crc[crc] ^= 1;
    let garbage = [good.as_slice(), b"and then some"].concat();
    let tar = with_model().file("m/1/noise", &noise).tar();
    let mut after_end = tar.clone();
    after_end.extend_from_slice(&with_model().tar());
    let mut bad_header = header(EntryType::Regular, "m/x", "", 0o644, 0);
    bad_header.as_mut_bytes()[0] ^= 1;
    vec![
        ("cut", cut, &["truncated"]),
        ("trailer cut", trailer_cut, &["truncated"]),
        ("flipped bits", flipped, &["corrupt"]),
        ("wrong CRC", wrong_crc, &["corrupt"]),
        ("garbage behind the gzip", garbage, &["not gzip follows"]),
        ("a second tar behind the end marker", gzip(&after_end), &["follows the tar's end marker"]),
        ("cut tar", gzip(&tar[..tar.len() / 2]), &["entry 'm/1/noise'", "truncated"]),
        ("tar without its end", gzip(&with_model().unterminated_tar()), &["truncated", "end marker"]),
        ("wrong header checksum", with_model().raw(&bad_header, b"").gzip(), &["after 2 entries", "wrong checksum"]),
        ("no tar inside", gzip(&noise), &["not a tar"]),
        ("huge long name", with_model().file(&"x".repeat(2 << 20), "").gzip(), &["a long name or PAX header has"]),
        ("plain tar", with_model().tar(), &["not gzip", "uncompressed tar"]),
        ("zip", b"PK\x03\x04rest of it".to_vec(), &["not gzip", "zip"]),
        ("zstd", b"\x28\xb5\x2f\xfd....".to_vec(), &["not gzip", "zstd"]),
        ("HTML", b"<!DOCTYPE html>".to_vec(), &["not gzip", "HTML"]),
        ("nothing", Vec::new(), &["empty (0 bytes)"]),
        ("empty gzip", gzip(b""), &["no entries"]),
        ("empty tar", ArchiveBuilder::new().gzip(), &["no files"]),
        ("only directories", ArchiveBuilder::new().directory("m").gzip(), &["no files"]),
    ]
}

fn over_the_limits() -> Vec<Case> {
    let many = (0..300).fold(with_model(), |archive, n| archive.file(&format!("m/{n}"), ""));
    let bomb = with_model().file("m/1/bomb", vec![0; 80 << 20]);
    // Compresses, but not fiftyfold.
    let text: Vec<u8> = (0..9_000_000u32).flat_map(|n| (n / 2).to_string().into_bytes()).take(60 << 20).collect();
    let large = with_model().file("m/1/a", &text).file("m/1/b", &text);
    let liar = with_model().raw(&header(EntryType::Regular, "m/1/liar", "", 0o644, 1 << 40), b"");
    vec![
        ("too many files", many.gzip(), &["entry 'm/", "limit of 200 files"]),
        ("too many bytes", large.gzip(), &["entry 'm/1/b'", "more than the limit of 104857600 bytes"]),
        ("claims too many bytes", liar.gzip(), &["entry 'm/1/liar'", "more than the limit of 104857600 bytes"]),
        ("bomb", bomb.gzip(), &["entry 'm/1/bomb'", "decompression bomb"]),
    ]
}

async fn check(cases: Vec<Case>) {
    let limits = UnpackLimits {
        max_files: 200,
        max_unpacked_bytes: 100 << 20,
        max_expansion_ratio: 50,
        ..UnpackLimits::default()
    };
    let setup = Setup::with(|config| config.limits = limits);
    for (name, archive, expected) in cases {
        setup.put("bad.tar.gz", &archive);
        let error = setup.fetch("bad.tar.gz").await.map(|_| ()).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}: {error}");
        assert_eq!(error.model(), Some("bad.tar.gz"), "{name}");
        for part in ["archive 'bad.tar.gz' is refused: "].iter().chain(expected) {
            assert!(error.message().contains(part), "{name}: {error}\nshould contain\n{part}");
        }
        assert!(setup.on_disk("staging").is_empty() && setup.on_disk("entries").is_empty(), "{name}: left something");
        assert_eq!(setup.cache.bytes(), 0, "{name}");
        assert!(setup.cache.lookup(&setup::target("bad.tar.gz")).is_none(), "{name}");
    }
}

#[tokio::test]
async fn bad_paths_and_links_are_refused() {
    check(bad_paths_and_links()).await;
}

#[tokio::test]
async fn bad_kinds_and_modes_are_refused() {
    check(bad_kinds_and_modes()).await;
}

#[tokio::test]
async fn broken_streams_are_refused() {
    check(broken_streams()).await;
}

#[tokio::test]
async fn what_exceeds_a_limit_is_refused() {
    check(over_the_limits()).await;
}

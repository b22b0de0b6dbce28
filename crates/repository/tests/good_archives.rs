//! What is packed comes out again, whoever packed it.

mod setup;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use proptest::prelude::*;
use setup::{Setup, text};
use tar::EntryType;
use test_util::archive::{ArchiveBuilder, gzip};

#[tokio::test]
async fn every_ordinary_archive_is_unpacked() {
    let setup = Setup::new();
    let long = format!("m/{}/{}.txt", "directory".repeat(20), "file".repeat(20));
    let archive = ArchiveBuilder::new()
        .directory("./")
        .entry(EntryType::XGlobalHeader, "pax_global_header", "", 0o644, b"22 comment=0123456789\n")
        .directory("./m/1/")
        .file("./m/config.pbtxt", "backend: \"identity\"")
        .file("m/._config.pbtxt", "AppleDouble")
        .file_with_mode("m/run.sh", "#!/bin/sh", 0o755)
        .file(&long, "long")
        .pax(&[("path", "m/ü/模型.txt".as_bytes()), ("SCHILY.xattr.x", b"\x01\n\x02")])
        .file("short", "pax")
        .pax(&[("size", b"3")])
        .file("m/size", "abc")
        .entry(EntryType::Regular, "old/", "", 0o755, b"")
        .file("implied/parents/file", "x")
        .symlink("m/latest", "./1/../config.pbtxt")
        .symlink("implied/m", "../m")
        .symlink("dangling", "m/nothing")
        .hard_link("./hard", "./m/config.pbtxt")
        .file("empty", "")
        .gzip();
    setup.put("team/a.tar.gz", &archive);
    let cached = setup.fetch("team/a.tar.gz").await.expect("unpacked");

    let root = cached.path();
    for directory in ["m/1", "old", "implied/parents"] {
        assert!(root.join(directory).is_dir(), "{directory}");
    }
    for (file, content) in [
        ("m/config.pbtxt", "backend: \"identity\""),
        ("m/._config.pbtxt", "AppleDouble"),
        ("m/latest", "backend: \"identity\""),
        ("implied/m/size", "abc"),
        ("hard", "backend: \"identity\""),
        ("m/ü/模型.txt", "pax"),
        (long.as_str(), "long"),
        ("empty", ""),
    ] {
        assert_eq!(text(root, file), content, "{file}");
    }
    assert!(!root.join("short").exists(), "the PAX path replaces it");
    let mode = |file| std::fs::metadata(root.join(file)).expect(file).permissions().mode() & 0o111;
    assert_eq!((mode("m/run.sh") & 0o100, mode("m/config.pbtxt")), (0o100, 0));
    let inode = |file| std::fs::metadata(root.join(file)).expect(file).ino();
    assert_eq!(inode("hard"), inode("m/config.pbtxt"));
    assert!(setup.on_disk("staging").is_empty());
}

#[tokio::test]
async fn several_gzip_members_are_one_archive() {
    let setup = Setup::new();
    let tar = ArchiveBuilder::new().file("m/config.pbtxt", "x".repeat(5000)).tar();
    let archive: Vec<u8> = tar.chunks(700).flat_map(gzip).collect();
    setup.put("a.tar.gz", &archive);
    let cached = setup.fetch("a.tar.gz").await.expect("unpacked");
    assert_eq!(text(cached.path(), "m/config.pbtxt").len(), 5000);
}

#[tokio::test]
async fn what_gnu_tar_packs_is_unpacked() {
    let setup = Setup::new();
    let folder = tempfile::tempdir().expect("a folder");
    let deep = folder.path().join("m").join("long-directory-name-".repeat(4)).join("and-another-".repeat(5)).join("1");
    std::fs::create_dir_all(&deep).expect("folders");
    std::fs::write(deep.join("model.onnx"), vec![7; 3_000_000]).expect("a file");
    for format in ["gnu", "posix", "ustar"] {
        let packed = std::process::Command::new("tar")
            .args(["--format", format, "-czf", "-", "-C"])
            .arg(folder.path())
            .arg(".")
            .output()
            .expect("tar runs");
        assert!(packed.status.success());
        setup.put("a.tar.gz", &packed.stdout);
        let cached = setup.fetch("a.tar.gz").await.expect(format);
        let unpacked = cached.path().join(deep.strip_prefix(folder.path()).expect("below")).join("model.onnx");
        assert_eq!(std::fs::read(unpacked).expect(format), vec![7; 3_000_000]);
    }
}

/// A tree as path → content; `None` is a directory.
type TreeModel = BTreeMap<String, Option<Vec<u8>>>;

fn trees() -> impl Strategy<Value = TreeModel> {
    let name = prop_oneof!["[a-z]{1,3}", "[a-zä ]{1,60}"];
    let path = proptest::collection::vec(name, 1..5).prop_map(|parts| parts.join("/"));
    let content = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..2000));
    proptest::collection::btree_map(path, content, 1..12).prop_map(|mut tree: TreeModel| {
        // A file has nothing below it.
        let files: Vec<String> = tree.iter().filter(|(_, c)| c.is_some()).map(|(path, _)| format!("{path}/")).collect();
        tree.retain(|path, _| !files.iter().any(|file| path.starts_with(file.as_str())));
        tree.insert("always/one file".to_owned(), Some(vec![1]));
        tree.remove("always");
        tree
    })
}

fn read_back(root: &Path, below: &Path, found: &mut TreeModel) {
    for entry in std::fs::read_dir(below).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8").to_owned();
        if path.is_dir() {
            found.insert(name, None);
            read_back(root, &path, found);
        } else {
            found.insert(name, Some(std::fs::read(&path).expect("a file")));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_trees_round_trip(mut tree in trees()) {
        let setup = Setup::new();
        let archive = tree.iter().fold(ArchiveBuilder::new(), |archive, (path, content)| match content {
            Some(content) => archive.file(path, content),
            None => archive.directory(path),
        });
        setup.put("a.tar.gz", &archive.gzip());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let cached = runtime.block_on(setup.fetch("a.tar.gz")).expect("unpacked");
        let mut found = TreeModel::new();
        read_back(cached.path(), cached.path(), &mut found);
        // Directories that were only implied.
        for path in tree.keys().cloned().collect::<Vec<_>>() {
            for (end, _) in path.match_indices('/') {
                tree.entry(path[..end].to_owned()).or_insert(None);
            }
        }
        prop_assert_eq!(found, tree);
    }
}

//! Where things are: the repository's root, and `target/panoply`, which holds all that `setup` makes.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

static ROOT: OnceLock<PathBuf> = OnceLock::new();

/// The repository's root: the one around the current folder. What was true when this was compiled would be wrong where
/// two clones share a target folder, because cargo may then run the other clone's binary.
pub(crate) fn root() -> &'static Path {
    ROOT.get_or_init(|| {
        let current = env::current_dir().unwrap_or_default();
        let around = current.ancestors().find(|folder| folder.join("crates/xtask/Cargo.toml").exists());
        around.unwrap_or(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))).to_path_buf()
    })
}

/// `target/panoply`. It stays there whatever CARGO_TARGET_DIR says, so that tests find it.
pub(crate) fn prepared() -> PathBuf {
    root().join("target/panoply")
}

/// A script or data file of `crates/xtask/python`.
pub(crate) fn python(name: &str) -> PathBuf {
    root().join("crates/xtask/python").join(name)
}

//! Products: things under `target/panoply` that appear whole or not at all, and are made again only when their key changes.
//!
//! A product is built in a folder of this run's own below `.building`, renamed into place, and only then stamped; a run
//! that was killed at any point leaves either the old product or one without a stamp, which the next run replaces.

use std::{
    cell::Cell,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result};

use super::key::Key;

/// The folder that products go to, held by one process at a time.
pub(super) struct Workbench {
    root: PathBuf,
    /// This run's folder for what is not finished. No other run uses its name: a pip that outlived a killed run may
    /// still be writing to that run's folder.
    unfinished: PathBuf,
    made: Cell<usize>,
    _lock: File,
}

/// Where one product is being built.
pub(super) struct Site {
    /// The file or folder to make; it becomes the product.
    pub(super) out: PathBuf,
    /// An empty folder for anything else; thrown away afterwards.
    pub(super) scratch: PathBuf,
}

impl Workbench {
    /// Waits until no other `setup` runs, and clears away what an interrupted one left.
    pub(super) fn open(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(root.join(".stamps")).with_context(|| format!("cannot create {}", root.display()))?;
        let lock = File::create(root.join(".lock"))?;
        lock.lock().with_context(|| format!("cannot lock {}", root.display()))?;
        let building = root.join(".building");
        remove(&building).with_context(|| format!("cannot clear {}", building.display()))?;
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let unfinished = building.join(format!("{}-{now}", std::process::id()));
        Ok(Self { root, unfinished, made: Cell::new(0), _lock: lock })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// How many products this run has made.
    pub(super) fn made(&self) -> usize {
        self.made.get()
    }

    /// Makes the product `name` (a path below the root) with `build`, unless it is there and was made from the same key.
    pub(super) fn make(&self, name: &str, key: &Key, build: impl FnOnce(&Site) -> Result<()>) -> Result<()> {
        let key = key.hex();
        if self.is_current(name, &key) {
            return Ok(());
        }
        let start = Instant::now();
        let site = self.site(name)?;
        build(&site).with_context(|| format!("cannot make target/panoply/{name}"))?;
        let size = size_of(&site.out)?;
        self.install(name, &site.out, &key)?;
        self.made.set(self.made.get() + 1);
        eprintln!("  made {name} ({:.1} MB) in {:.1} s", megabytes(size), start.elapsed().as_secs_f64());
        Ok(())
    }

    fn is_current(&self, name: &str, key: &str) -> bool {
        self.path(name).exists() && fs::read_to_string(self.stamp(name)).is_ok_and(|stamp| stamp == key)
    }

    fn stamp(&self, name: &str) -> PathBuf {
        self.root.join(".stamps").join(name.replace('/', "@"))
    }

    /// An empty folder below `.building`, in place of an earlier one of that name.
    pub(super) fn fresh_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.unfinished.join(name);
        remove(&folder)?;
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn site(&self, name: &str) -> Result<Site> {
        let file_name = Path::new(name).file_name().expect("invariant: a product's name ends in a file name");
        self.fresh_folder("replaced")?;
        Ok(Site { out: self.fresh_folder("out")?.join(file_name), scratch: self.fresh_folder("scratch")? })
    }

    /// Old stamp away, old product aside, new product in, new stamp: in this order.
    fn install(&self, name: &str, built: &Path, key: &str) -> Result<()> {
        let (target, stamp) = (self.path(name), self.stamp(name));
        remove(&stamp)?;
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if target.symlink_metadata().is_ok() {
            fs::rename(&target, self.unfinished.join("replaced/product"))?;
        }
        fs::rename(built, &target)?;
        let fresh = self.unfinished.join("stamp");
        fs::write(&fresh, key)?;
        Ok(fs::rename(fresh, stamp)?)
    }
}

impl Drop for Workbench {
    /// What cannot be removed now is removed by the next run.
    fn drop(&mut self) {
        drop(remove(&self.root.join(".building")));
    }
}

/// Removes a file or folder; one that is not there is fine.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn size_of(path: &Path) -> io::Result<u64> {
    let metadata = path.symlink_metadata()?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    fs::read_dir(path)?.try_fold(0, |total, entry| Ok(total + size_of(&entry?.path())?))
}

pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    /// Makes the product `p`, a folder with one file; tells how often its `build` ran.
    fn make(root: &Path, key: &str, content: &str) -> usize {
        let bench = Workbench::open(root.to_path_buf()).unwrap();
        let build = |site: &Site| Ok(fs::create_dir(&site.out).and_then(|()| fs::write(site.out.join("f"), content))?);
        bench.make("folder/p", &Key::new().text(key), build).unwrap();
        bench.made()
    }

    fn content(root: &Path) -> String {
        fs::read_to_string(root.join("folder/p/f")).unwrap()
    }

    #[test]
    fn is_made_once_for_a_key_and_again_for_another() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(make(root.path(), "a", "first"), 1);
        assert_eq!(make(root.path(), "a", "second"), 0);
        assert_eq!(content(root.path()), "first");
        assert_eq!(make(root.path(), "b", "third"), 1);
        assert_eq!(content(root.path()), "third");
        assert!(!root.path().join(".building").exists(), "nothing unfinished is left");
    }

    #[test]
    fn a_product_that_was_deleted_or_has_no_stamp_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), "a", "first");
        fs::remove_dir_all(root.path().join("folder/p")).unwrap();
        assert_eq!(make(root.path(), "a", "second"), 1);
        fs::remove_file(root.path().join(".stamps/folder@p")).unwrap();
        fs::write(root.path().join("folder/p/half"), "written by a run that was killed").unwrap();
        assert_eq!(make(root.path(), "a", "third"), 1);
        assert_eq!(content(root.path()), "third");
        assert!(!root.path().join("folder/p/half").exists());
    }

    #[test]
    fn a_failed_build_leaves_the_old_product_and_the_next_run_tries_again() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), "a", "first");
        let bench = Workbench::open(root.path().to_path_buf()).unwrap();
        let failed = bench.make("folder/p", &Key::new().text("b"), |site| {
            fs::create_dir(&site.out)?;
            bail!("the network is down")
        });
        assert!(format!("{:#}", failed.unwrap_err()).contains("folder/p: the network is down"));
        drop(bench);
        assert_eq!(content(root.path()), "first");
        assert_eq!(make(root.path(), "b", "second"), 1);
    }
}

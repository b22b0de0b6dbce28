//! The machine's Python 3, and virtual environments made with it.
//!
//! Environments are made without pip inside, and filled by the machine's own pip: this needs neither Debian's
//! `python3-venv` nor a recent pip.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// Older interpreters have no wheels of the locked packages.
const OLDEST: (u32, u32) = (3, 11);

/// Prints: major, minor, whether pip and venv are there, and what makes an environment belong to this interpreter.
const PROBE: &str = "import sys, importlib.util as u
print(*sys.version_info[:2], *(u.find_spec(m) is not None for m in ('pip', 'venv')))
print(sys.executable, sys.implementation.cache_tag)";

/// A Python that can do what `setup` asks of it.
pub(super) struct Python {
    /// Path and ABI: an environment made with another Python has to be made again.
    pub(super) identity: String,
}

impl Python {
    /// Checks `python3`.
    pub(super) fn find() -> Result<Self> {
        let answer = process::capture(Command::new("python3").args(["-c", PROBE]))
            .context("`cargo xtask` needs Python 3 with pip (on Debian or Ubuntu: apt-get install python3-pip)")?;
        let answer = String::from_utf8_lossy(&answer);
        let (facts, identity) = answer.split_once('\n').context("python3 gave an unexpected answer")?;
        check(facts)?;
        Ok(Self { identity: identity.trim().to_owned() })
    }
}

/// `facts` is the probe's first line.
fn check(facts: &str) -> Result<()> {
    let words: Vec<_> = facts.split_whitespace().collect();
    let [major, minor, pip, venv] = words[..] else { bail!("python3 gave an unexpected answer: {facts}") };
    if (major.parse()?, minor.parse()?) < OLDEST {
        bail!("python3 is {major}.{minor}, but {}.{} or later is needed", OLDEST.0, OLDEST.1);
    }
    if pip != "True" {
        bail!("python3 has no pip: install it (on Debian or Ubuntu: apt-get install python3-pip)");
    }
    if venv != "True" {
        bail!("python3 has no module `venv`: install it (on Debian or Ubuntu: apt-get install python3-venv)");
    }
    Ok(())
}

/// Makes a virtual environment at `folder` with exactly the packages that `requirements` locks, hashes checked.
pub(super) fn make_environment(folder: &Path, requirements: &Path) -> Result<()> {
    let shown = requirements.strip_prefix(workspace::root()).unwrap_or(requirements).display();
    eprintln!("  installing {} Python packages ({shown})", count(requirements)?);
    process::capture(Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(folder))?;
    let site_packages = process::capture(
        Command::new(folder.join("bin/python")).args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]),
    )?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-deps", "--require-hashes"]);
    pip.args(["--only-binary=:all:", "--requirement"]).arg(requirements);
    pip.arg("--target").arg(String::from_utf8_lossy(&site_packages).trim());
    process::capture(&mut pip).map(drop)
}

fn count(requirements: &Path) -> Result<usize> {
    Ok(std::fs::read_to_string(requirements)?.lines().filter(|line| line.contains("==")).count())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_python_that_will_not_do_is_refused_with_what_to_do() {
        assert!(check("3 11 True True").is_ok());
        assert!(check("3 14 True True").is_ok());
        for (facts, part) in [
            ("3 10 True True", "3.11 or later"),
            ("3 12 False True", "python3-pip"),
            ("3 12 True False", "python3-venv"),
            ("nonsense", "unexpected"),
        ] {
            let error = check(facts).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}

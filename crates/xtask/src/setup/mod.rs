//! Prepares `target/panoply`: ONNX Runtime, the demo models and their archives, and what the tests need.
//!
//! Each thing made is a *product*: built aside, renamed into place, and stamped with a key of everything it was made
//! from. A product whose stamp matches is left alone, so a second run needs neither the network nor time.

mod archives;
mod download;
mod key;
mod packages;
mod perf_analyzer;
mod product;
mod python;
mod test_data;

use std::{path::PathBuf, process::Command, time::Instant};

use anyhow::{Result, anyhow};
use key::Key;
use product::{Site, Workbench};
use python::Python;

use crate::{process, workspace};

/// What every step needs: the place where products go, and the machine's Python.
struct Setup {
    bench: Workbench,
    python: Python,
}

/// Makes what the demo and the benchmarks need.
pub(crate) fn for_demo() -> Result<()> {
    prepare(|setup| {
        setup.onnxruntime()?;
        archives::make_all(setup)
    })
}

/// Makes what the demo and the tests need.
pub(crate) fn for_tests() -> Result<()> {
    prepare(|setup| {
        setup.onnxruntime()?;
        archives::make_all(setup)?;
        test_data::make_all(setup)?;
        perf_analyzer::make(setup)
    })
}

/// Makes `venv-bench/`: a Python with zlib-ng.
pub(crate) fn zlib_ng() -> Result<()> {
    prepare(|setup| setup.environment("venv-bench", "bench").map(drop))
}

fn prepare(steps: impl FnOnce(&Setup) -> Result<()>) -> Result<()> {
    let start = Instant::now();
    let setup = Setup { bench: Workbench::open(workspace::prepared())?, python: Python::find()? };
    steps(&setup)?;
    let made = setup.bench.made();
    if made > 0 {
        eprintln!("prepared {made} things under target/panoply in {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

impl Setup {
    /// `onnxruntime/libonnxruntime.so`, out of the Python wheel.
    fn onnxruntime(&self) -> Result<()> {
        let package = packages::onnxruntime().ok_or_else(|| {
            anyhow!("no ONNX Runtime is pinned for this platform; the pins are in crates/xtask/src/setup/packages.rs")
        })?;
        let key = Key::new().package(package).file(&workspace::python("extract.py"))?;
        self.bench.make("onnxruntime", &key, |site| {
            self.extract(package, "onnxruntime/capi/libonnxruntime.so", &site.scratch)?;
            std::fs::create_dir(&site.out)?;
            let library = std::fs::read_dir(&site.scratch)?.next().transpose()?;
            let library = library.ok_or_else(|| anyhow!("the ONNX Runtime wheel holds no library"))?;
            std::fs::rename(library.path(), site.out.join("libonnxruntime.so"))?;
            Ok(())
        })
    }

    /// Downloads `package` if need be, and writes its files that begin with `prefix` to `out`.
    fn extract(&self, package: &packages::Package, prefix: &str, out: &std::path::Path) -> Result<()> {
        let file = download::fetch(&self.bench, package)?;
        let script = workspace::python("extract.py");
        process::capture(Command::new("python3").arg(script).arg(file).arg(prefix).arg(out))?;
        Ok(())
    }

    /// A virtual environment with the locked packages of `requirements/<list>.txt`; gives its interpreter.
    fn environment(&self, name: &str, list: &str) -> Result<PathBuf> {
        let requirements = workspace::python(&format!("requirements/{list}.txt"));
        let key = Key::new().text(&self.python.identity).file(&requirements)?;
        self.bench.make(name, &key, |site: &Site| python::make_environment(&site.out, &requirements))?;
        Ok(self.bench.path(name).join("bin/python"))
    }
}

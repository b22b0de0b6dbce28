//! A CUDA driver without a GPU, for the server to load.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::launch::Launch;

/// The driver of the tests, built from `driver/libcuda.c`.
pub struct Driver {
    folder: TempDir,
}

impl Driver {
    /// Builds it.
    ///
    /// # Panics
    /// When there is no C compiler, or it finds fault.
    pub fn build() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("driver/libcuda.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]);
        let status = compiler.arg(folder.path().join("libcuda.so")).arg(source).arg("-lrt").status();
        assert!(status.expect("a C compiler").success());
        Driver { folder }
    }

    /// A launch of servers that find this driver.
    pub fn under(&self, launch: Launch) -> Launch {
        let launch = launch.variable("LD_LIBRARY_PATH", &self.folder.path().display().to_string());
        launch.variable("FAKE_CUDA_LOG", &self.folder.path().join("calls").display().to_string())
    }

    /// The same with GPUs of so much memory, and so much of it free, in MiB.
    pub fn with_gpus(&self, launch: Launch, gpus: &[(u64, u64)]) -> Launch {
        let stated: Vec<String> = gpus.iter().map(|(total, free)| format!("{total}:{free}")).collect();
        self.under(launch).variable("FAKE_CUDA_GPUS", &stated.join(","))
    }

    /// What was opened and closed, line by line.
    ///
    /// # Panics
    /// When nothing was.
    pub fn calls(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("calls")).expect("the driver was called")
    }
}

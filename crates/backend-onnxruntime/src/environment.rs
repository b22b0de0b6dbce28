//! Opens ONNX Runtime's library and makes the one environment that a process may have.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use inference::{Error, Result};
use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use parking_lot::Mutex;

use crate::OnnxRuntimeConfig;
use crate::arena::{self, Arena};

/// What runs in this process. ONNX Runtime allows no second environment, not even after the first is gone, so this one
/// stays until the process ends and every later start shares it.
static STARTED: Mutex<Option<(PathBuf, Runtime)>> = Mutex::new(None);

/// What a process has one of.
#[derive(Clone)]
pub(crate) struct Runtime {
    pub(crate) environment: Environment,
    pub(crate) arena: Arc<Arena>,
}

/// The process's environment, made by the first call; later calls share it, thread pool and arena included.
///
/// # Errors
/// Unavailable when the library cannot be opened or is too old; AlreadyExists when the process runs another library.
pub(crate) fn start(config: &OnnxRuntimeConfig) -> Result<Runtime> {
    let library = resolve(&config.library)?;
    let mut started = STARTED.lock();
    if let Some((running, runtime)) = &*started {
        if *running == library {
            return Ok(runtime.clone());
        }
        return Err(Error::new(
            inference::ErrorKind::AlreadyExists,
            format!(
                "this process already runs ONNX Runtime from '{}' and cannot also run '{}'",
                running.display(),
                library.display()
            ),
        ));
    }
    let environment = make(&library, config.intra_op_threads)?;
    arena::register(&environment)?;
    let runtime = Runtime { arena: Arena::new(&environment)?, environment };
    *started = Some((library, runtime.clone()));
    Ok(runtime)
}

/// The library's full path. A bare file name is left to the system's loader.
fn resolve(library: &Path) -> Result<PathBuf> {
    let bare = library.components().count() == 1 && !library.exists();
    if bare && library.file_name().is_some() {
        return Ok(library.to_owned());
    }
    library.canonicalize().map_err(|error| cannot_load(library, &error))
}

fn make(library: &Path, threads: Option<NonZeroUsize>) -> Result<Environment> {
    let builder = ort::init_from(library).map_err(|error| cannot_load(library, &error))?;
    let threads = threads.or_else(|| available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    // Spinning keeps idle threads busy between runs and gains nothing once several models share the pool. Graphs run
    // their nodes in sequence, so the pool between nodes needs no threads of its own.
    let make = || {
        let pool = GlobalThreadPoolOptions::default()
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            .with_spin_control(false)?;
        builder.with_name("panoply").with_telemetry(false).with_global_thread_pool(pool).build()
    };
    let environment = make().map_err(|error| {
        Error::internal(format!("ONNX Runtime from '{}' does not start: {error}", library.display()))
    })?;
    // The environment is made with the most verbose level, and every message is formatted before `tracing` drops it.
    environment.set_log_level(LogLevel::Warning);
    tracing::info!(library = %library.display(), threads, build = ort::info(), "ONNX Runtime started");
    Ok(environment)
}

fn cannot_load(library: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::unavailable(format!(
        "cannot load ONNX Runtime from '{}': {why}; install it with `pip install onnxruntime==1.31.1` and set --ort-library \
         to the file onnxruntime/capi/libonnxruntime.so.1.31.1 of that package",
        library.display()
    ))
}

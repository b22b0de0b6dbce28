//! Keeps work on files away from the threads that carry requests.

use tokio::runtime::Handle;

/// Does work on files elsewhere when the current thread may carry requests: pins and models are dropped there, too.
pub(crate) fn off_request_threads(work: impl FnOnce() + Send + 'static) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

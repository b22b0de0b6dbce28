//! Work that blocks, such as loading and unloading: never on threads that carry requests.

use tokio::task::JoinHandle;

/// Runs it on a thread that may block. It goes on when the handle is dropped.
pub(crate) fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(test)]
    if let Some(duration) = crate::simulation::work_duration() {
        return tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            work()
        });
    }
    tokio::task::spawn_blocking(work)
}

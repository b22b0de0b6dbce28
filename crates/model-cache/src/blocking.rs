//! Work that blocks, such as loading and unloading: never on threads that carry requests.

use repository::{Background, Working};

/// Runs it in the background. It goes on when what waits for it is dropped.
pub(crate) fn spawn<T: Send + 'static>(
    background: &Background,
    work: impl FnOnce() -> T + Send + 'static,
) -> Working<T> {
    #[cfg(test)]
    if let Some(duration) = crate::simulation::work_duration() {
        return Working::after(duration, work);
    }
    background.run(work)
}

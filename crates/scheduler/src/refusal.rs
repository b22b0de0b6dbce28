//! What a request is told that waits for too long, finds no room, or is not run to its end; pure.

use inference::Error;
use tokio::task::JoinError;

use crate::batcher::Full;

/// The time that a request may wait is over.
pub(crate) fn late(model: &str) -> Error {
    Error::unavailable(format!("Request timeout expired while it waited for model '{model}'"))
}

/// As many wait as may.
pub(crate) fn queue_full(model: &str, full: Full) -> Error {
    let (bound, whose, setting) = match full {
        Full::Queue(bound) => (bound as u64, String::new(), "max_queue_size"),
        Full::Level(0, bound) => (u64::from(bound), String::new(), "max_queue_size of its queue policy"),
        Full::Level(level, bound) => {
            (u64::from(bound), format!(" of priority level {level}"), "max_queue_size of its queue policy")
        }
    };
    Error::overloaded(format!(
        "Exceeds maximum queue size: {bound} requests{whose} wait for model '{model}' already, as many as {setting} allows; \
         send it again later"
    ))
}

/// The runtime ended before the request ran; `source` is how whoever waited learned of it.
pub(crate) fn shutting_down(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::unavailable("the server is shutting down, the request was not run; send it again").with_source(source)
}

/// What ran the request came to no end: it panicked, or the runtime ended before.
pub(crate) fn lost(gone: JoinError) -> Error {
    match gone.is_panic() {
        true => Error::internal("the server failed while it ran the request").with_source(gone),
        false => shutting_down(gone),
    }
}

/// A decoupled model let go of a request without saying how it ended.
pub(crate) fn unfinished() -> Error {
    Error::internal("the model stopped without saying that its last response was its last").from_model()
}

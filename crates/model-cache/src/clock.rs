//! The time, as tests can pause it.

use std::time::Instant;

/// Now, by the runtime's clock.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

//! Why archives leave memory.

/// Why an archive leaves memory; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnloadReason {
    /// Another archive needs the room.
    Room,
    /// It was asked for.
    Request,
    /// A newer load of the same took its place.
    Replaced,
    /// The store has it no more.
    Deleted,
    /// A model crashed and cannot answer any more.
    Crash,
    /// The disk cache needs the room of its files.
    Disk,
    /// The server stops.
    Shutdown,
}

impl UnloadReason {
    pub(crate) const ALL: [UnloadReason; 7] = [
        UnloadReason::Room,
        UnloadReason::Request,
        UnloadReason::Replaced,
        UnloadReason::Deleted,
        UnloadReason::Crash,
        UnloadReason::Disk,
        UnloadReason::Shutdown,
    ];

    /// Whether the archive was still of use.
    pub(crate) const fn is_eviction(self) -> bool {
        matches!(self, UnloadReason::Room | UnloadReason::Disk)
    }

    pub(crate) const fn label(self) -> &'static str {
        match self {
            UnloadReason::Room => "room",
            UnloadReason::Request => "request",
            UnloadReason::Replaced => "replaced",
            UnloadReason::Deleted => "deleted",
            UnloadReason::Crash => "crash",
            UnloadReason::Disk => "disk",
            UnloadReason::Shutdown => "shutdown",
        }
    }
}

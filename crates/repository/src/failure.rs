//! Why a fetch failed: the error for the caller, and a reason that decides what happens next and labels the metric.

use std::fmt;
use std::io;

use inference::{Error, TargetModel};

/// The closed set of reasons; each is a label of `panoply_download_failures_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The store could not be reached, refused, or no longer has the archive.
    Store,
    /// The download took longer than allowed.
    Timeout,
    /// Length or checksum differ from what the store promised.
    Corrupt,
    /// The archive itself is bad or hostile.
    Archive,
    /// It does not fit.
    NoRoom,
    /// The local disk failed.
    Disk,
}

impl Reason {
    /// The metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Reason::Store => "store",
            Reason::Timeout => "timeout",
            Reason::Corrupt => "corrupt",
            Reason::Archive => "archive",
            Reason::NoRoom => "no_room",
            Reason::Disk => "disk",
        }
    }

    /// Whether the same bytes would fail again, so that fetching them again is put off.
    pub(crate) fn lies_in_the_archive(self) -> bool {
        matches!(self, Reason::Corrupt | Reason::Archive)
    }
}

/// A reason and its error.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) error: Error,
}

/// What a fallible step of a fetch returns.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(reason: Reason, error: Error) -> Self {
        Failure { reason, error }
    }

    /// The archive is bad.
    pub(crate) fn archive(message: impl Into<String>) -> Self {
        Failure::new(Reason::Archive, Error::invalid_argument(message))
    }

    /// An operation on the local disk failed.
    pub(crate) fn disk(what: impl fmt::Display, error: io::Error) -> Self {
        let message = format!("disk cache: cannot {what}: {error}; check the disk below --disk-cache");
        Failure::new(Reason::Disk, Error::internal(message).with_source(error))
    }

    /// Takes a failure back out of the I/O error that carried it through a reader.
    pub(crate) fn carried_by(error: io::Error) -> Result<Self, io::Error> {
        error.downcast::<Failure>()
    }

    /// Puts `context` in front of the message.
    pub(crate) fn context(self, context: impl fmt::Display) -> Self {
        Failure { error: self.error.context(context), ..self }
    }

    /// Names the archive.
    pub(crate) fn of(self, target: &TargetModel) -> Self {
        let error = match self.reason {
            Reason::Archive => self.error.context(format_args!("archive '{target}' is refused")),
            Reason::Corrupt => self.error.context(format_args!("archive '{target}'")),
            Reason::Store | Reason::Timeout | Reason::NoRoom | Reason::Disk => self.error,
        };
        Failure { error: error.with_model(target.as_str()), reason: self.reason }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Failure {}

/// So that a failure can travel through [`std::io::Read`].
impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        io::Error::other(failure)
    }
}

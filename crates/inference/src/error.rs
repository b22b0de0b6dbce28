//! The one error type of Panoply: a kind that is set where the error is born, a message, and where it comes from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// `Result` with Panoply's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a caller must know to react. The front end maps each kind to an HTTP status, a gRPC code
/// and a metric label in one table; nothing guesses a kind back from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request, archive or configuration is wrong; the same call will fail again.
    InvalidArgument,
    /// What was named does not exist.
    NotFound,
    /// What was named is known, and nothing of it is loaded.
    NotReady,
    /// What should be made exists already.
    AlreadyExists,
    /// Understood, but not something this server does.
    Unsupported,
    /// Cannot be had now; the same call may work later.
    Unavailable,
    /// The model is being loaded, and will not be ready before the caller stops waiting.
    Loading,
    /// A queue is full.
    Overloaded,
    /// Does not fit in memory or on disk.
    NoRoom,
    /// The request's time ran out.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// A fault of the server, of a model's code, or of a runtime.
    Internal,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [ErrorKind; 12] = [
        ErrorKind::InvalidArgument,
        ErrorKind::NotFound,
        ErrorKind::NotReady,
        ErrorKind::AlreadyExists,
        ErrorKind::Unsupported,
        ErrorKind::Unavailable,
        ErrorKind::Loading,
        ErrorKind::Overloaded,
        ErrorKind::NoRoom,
        ErrorKind::DeadlineExceeded,
        ErrorKind::Cancelled,
        ErrorKind::Internal,
    ];

    /// The kind's name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorKind::InvalidArgument => "invalid_argument",
            ErrorKind::NotFound => "not_found",
            ErrorKind::NotReady => "not_ready",
            ErrorKind::AlreadyExists => "already_exists",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Loading => "loading",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::NoRoom => "no_room",
            ErrorKind::DeadlineExceeded => "deadline_exceeded",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Internal => "internal",
        }
    }
}

/// Whose doing an error is; decides between, say, "your request is bad" and "the model failed on it".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The server itself, or the request before any model saw it.
    Server,
    /// A backend or a model's own code while it ran.
    Model,
}

/// An error; cheap to clone, because many waiters of one load may get the same one.
///
/// Messages are lower case, name the model, and say what to do.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    origin: Origin,
    message: String,
    model: Option<String>,
    version: Option<Arc<str>>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        let (origin, model, version, retry_after, source) = (Origin::Server, None, None, None, None);
        Error(Arc::new(Inner { kind, origin, message, model, version, retry_after, source }))
    }

    /// [`ErrorKind::InvalidArgument`].
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::Overloaded`].
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Overloaded, message)
    }

    /// [`ErrorKind::NoRoom`].
    pub fn no_room(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NoRoom, message)
    }

    /// [`ErrorKind::DeadlineExceeded`].
    pub fn deadline_exceeded(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::DeadlineExceeded, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Keeps what caused this error; it is logged, and shown with `{:#}`.
    #[must_use]
    pub fn with_source(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.edit(|inner| inner.source = Some(Arc::new(source)))
    }

    /// Names the model that this error is about.
    #[must_use]
    pub fn with_model(self, model: impl Into<String>) -> Self {
        self.edit(|inner| inner.model = Some(model.into()))
    }

    /// Says which version of an archive this error comes from; where that is known already, it stays.
    #[must_use]
    pub fn with_version(self, version: &Arc<str>) -> Self {
        if self.0.version.is_some() {
            return self;
        }
        self.edit(|inner| inner.version = Some(version.clone()))
    }

    /// Says that the same call may well work after so long.
    #[must_use]
    pub fn with_retry_after(self, time: Duration) -> Self {
        self.edit(|inner| inner.retry_after = Some(time))
    }

    /// Marks this error as the doing of a model's code or its runtime.
    #[must_use]
    pub fn from_model(self) -> Self {
        self.edit(|inner| inner.origin = Origin::Model)
    }

    /// Puts `context` and a colon in front of the message; kind, origin, model and source stay.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Self {
        self.edit(|inner| inner.message = format!("{context}: {}", inner.message))
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whose doing it is.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// The message for the caller, without the source.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The model that this error is about, if it is about one.
    pub fn model(&self) -> Option<&str> {
        self.0.model.as_deref()
    }

    /// The version of the archive that this error comes from, as in [`CacheOutcome`](crate::CacheOutcome), if that is known.
    pub fn version(&self) -> Option<&Arc<str>> {
        self.0.version.as_ref()
    }

    /// When the same call may work, counted from now, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

/// The message; with `{:#}` also the chain of sources.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if f.alternate() {
            let mut source = std::error::Error::source(self);
            while let Some(error) = source {
                write!(f, ": {error}")?;
                source = error.source();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.0.model.as_deref().unwrap_or("-");
        write!(f, "{:?} ({:?}, model {model}): {self:#}", self.0.kind, self.0.origin)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_kind_origin_and_source() {
        let error = Error::internal("boom").from_model().with_source(std::io::Error::other("disk")).context("step 'a'");
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(error.origin(), Origin::Model);
        assert_eq!(error.to_string(), "step 'a': boom");
        assert_eq!(format!("{error:#}"), "step 'a': boom: disk");
    }
}

//! The one table from an error's kind (and origin) to HTTP status, gRPC code, metric label and SageMaker error type.
//! Every surface reads its answer here; nothing else maps.

use std::time::Duration;

use http::StatusCode;
use inference::{Error, ErrorKind, Origin};

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The metric label `outcome`.
    pub label: &'static str,
    /// HTTP status of the KServe v2 surface and of `/invocations` on the HTTP port.
    pub http: u16,
    /// The gRPC code's number.
    pub grpc: u8,
    /// HTTP status of the SageMaker container contract.
    pub container: u16,
    /// HTTP status of `POST /models` of the container contract, once its body was understood.
    pub register: u16,
    /// The SageMaker runtime's status and `x-amzn-ErrorType`.
    pub runtime: (u16, &'static str),
    /// The same call may work soon: answers carry `Retry-After`, also where no error says when.
    pub retry: bool,
}

/// The outcome label of a request that was answered.
pub const SUCCESS: &str = "success";

/// What HTTP itself refuses before there is a request that an [`ErrorKind`] could be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The body is over the limit.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body is compressed in a way that is not read.
    Encoding,
    /// The API wants a key that the request does not have.
    Restricted,
    /// No such route.
    Route,
    /// The route does not take this method.
    Method,
}

const VALIDATION: &str = "ValidationError";
const UNAVAILABLE: &str = "ServiceUnavailable";

const fn row(
    label: &'static str,
    http: u16,
    grpc: u8,
    container: u16,
    register: u16,
    runtime: (u16, &'static str),
) -> Status {
    Status { label, http, grpc, container, register, runtime, retry: matches!(http, 503) }
}

/// The line of an error. `loading` says that the model is not in memory (yet), which only tells the SageMaker runtime's two
/// timeouts apart: a first load that takes too long, and a model that does.
pub fn of_error(error: &Error, loading: bool) -> Status {
    of(error.kind(), error.origin(), loading)
}

/// As [`of_error`].
pub fn of(kind: ErrorKind, origin: Origin, loading: bool) -> Status {
    let mut status = of_kind(kind, loading);
    if origin == Origin::Model {
        status.runtime = (424, "ModelError");
        if kind == ErrorKind::Internal {
            status.label = "model_error";
        }
    }
    status
}

fn of_kind(kind: ErrorKind, loading: bool) -> Status {
    match kind {
        ErrorKind::InvalidArgument => row("invalid_argument", 400, 3, 400, 500, (400, VALIDATION)),
        ErrorKind::NotFound => row("not_found", 404, 5, 404, 404, (400, VALIDATION)),
        ErrorKind::NotReady => row("not_ready", 404, 14, 404, 404, (400, VALIDATION)),
        ErrorKind::AlreadyExists => row("already_exists", 400, 6, 409, 409, (400, VALIDATION)),
        ErrorKind::Unsupported => row("unsupported", 501, 12, 501, 500, (400, VALIDATION)),
        ErrorKind::Unavailable => row("unavailable", 503, 14, 503, 503, (503, UNAVAILABLE)),
        ErrorKind::Loading => row("loading", 503, 14, 503, 503, (429, "ModelNotReadyException")),
        ErrorKind::Overloaded => row("overloaded", 503, 14, 503, 503, (429, "ThrottlingException")),
        ErrorKind::NoRoom => row("no_room", 503, 8, 507, 507, (503, UNAVAILABLE)),
        ErrorKind::DeadlineExceeded if loading => {
            row("deadline_exceeded", 504, 4, 504, 504, (429, "ModelNotReadyException"))
        }
        ErrorKind::DeadlineExceeded => row("deadline_exceeded", 504, 4, 504, 504, (424, "ModelError")),
        ErrorKind::Cancelled => row("cancelled", 499, 1, 499, 499, (503, UNAVAILABLE)),
        ErrorKind::Internal => row("internal", 500, 13, 500, 500, (500, "InternalFailure")),
    }
}

/// The line of a refusal.
pub fn of_refusal(refusal: Refusal) -> Status {
    match refusal {
        Refusal::BodyTooLarge => row("too_large", 413, 8, 413, 413, (413, VALIDATION)),
        Refusal::BodyTimeout => row("body_timeout", 408, 4, 408, 408, (408, VALIDATION)),
        Refusal::Encoding => row("unsupported", 415, 12, 415, 415, (415, VALIDATION)),
        Refusal::Restricted => row("restricted", 403, 14, 403, 403, (403, "AccessDeniedException")),
        Refusal::Route => row("not_found", 404, 5, 404, 404, (404, VALIDATION)),
        Refusal::Method => row("unsupported", 405, 12, 405, 405, (405, VALIDATION)),
    }
}

/// What `Retry-After` says of a time: whole seconds, at least one.
pub(crate) fn retry_after(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).clamp(1, u128::from(u32::MAX)) as u64
}

/// A status number of the table as hyper wants it.
pub fn code(number: u16) -> StatusCode {
    StatusCode::from_u16(number).expect("invariant: the table holds valid statuses")
}

/// Why a request gets no answer.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// An error with a kind of its own.
    Error(Error),
    /// HTTP refused it; the text says why.
    Refused(Refusal, String),
}

impl Failure {
    pub(crate) fn status(&self, loading: bool) -> Status {
        match self {
            Failure::Error(error) => of_error(error, loading),
            Failure::Refused(refusal, _) => of_refusal(*refusal),
        }
    }

    /// When the same request may well succeed, counted from now, if that is known.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Error(error) => error.retry_after(),
            Failure::Refused(..) => None,
        }
    }

    /// The version of the archive that it comes from, if that is known.
    pub(crate) fn version(&self) -> Option<&str> {
        match self {
            Failure::Error(error) => error.version().map(|version| &**version),
            Failure::Refused(..) => None,
        }
    }

    pub(crate) fn message(&self) -> &str {
        match self {
            Failure::Error(error) => error.message(),
            Failure::Refused(_, message) => message,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_valid_and_labels_differ() {
        let mut labels = std::collections::BTreeSet::new();
        for kind in ErrorKind::ALL {
            for origin in [Origin::Server, Origin::Model] {
                let status = of(kind, origin, false);
                for number in [status.http, status.container, status.register, status.runtime.0] {
                    assert!(code(number).as_u16() >= 400, "{kind:?}");
                }
                assert!((1..=16).contains(&status.grpc), "{kind:?}");
                labels.insert(status.label);
            }
        }
        assert_eq!(labels.len(), ErrorKind::ALL.len() + 1);
    }

    #[test]
    fn retry_after_is_whole_seconds_upwards() {
        for (milliseconds, seconds) in [(0, 1), (999, 1), (1000, 1), (1001, 2), (61_500, 62)] {
            assert_eq!(retry_after(Duration::from_millis(milliseconds)), seconds);
        }
    }

    #[test]
    fn the_published_cases() {
        let cases = [
            (ErrorKind::NotFound, Origin::Server, false, (404, 5, 404, (400, "ValidationError"))),
            (ErrorKind::NotReady, Origin::Server, false, (404, 14, 404, (400, "ValidationError"))),
            (ErrorKind::AlreadyExists, Origin::Server, false, (400, 6, 409, (400, "ValidationError"))),
            (ErrorKind::NoRoom, Origin::Server, false, (503, 8, 507, (503, "ServiceUnavailable"))),
            (ErrorKind::Loading, Origin::Server, true, (503, 14, 503, (429, "ModelNotReadyException"))),
            (ErrorKind::Overloaded, Origin::Server, false, (503, 14, 503, (429, "ThrottlingException"))),
            (ErrorKind::DeadlineExceeded, Origin::Server, true, (504, 4, 504, (429, "ModelNotReadyException"))),
            (ErrorKind::DeadlineExceeded, Origin::Server, false, (504, 4, 504, (424, "ModelError"))),
            (ErrorKind::InvalidArgument, Origin::Model, false, (400, 3, 400, (424, "ModelError"))),
            (ErrorKind::Internal, Origin::Server, false, (500, 13, 500, (500, "InternalFailure"))),
        ];
        for (kind, origin, loading, expected) in cases {
            let status = of(kind, origin, loading);
            assert_eq!((status.http, status.grpc, status.container, status.runtime), expected, "{kind:?} {origin:?}");
        }
    }
}

//! Failures as gRPC statuses, by the one table in [`crate::status`].

use http::HeaderMap;
use inference::Error;
use tonic::{Code, Status};

use crate::infer::version_header;
use crate::status::{Failure, retry_after};

/// In how many seconds the same call may work, where that is known.
const RETRY_AFTER: &str = "retry-after";
/// A status travels as a header, and clients bound headers to some kilobytes; escaping may triple it.
const MAX_MESSAGE: usize = 2048;

/// The status of a failure.
pub(super) fn status(failure: &Failure) -> Status {
    let line = failure.status(false);
    let mut status = Status::new(Code::from_i32(i32::from(line.grpc)), clip(failure.message()));
    let metadata = status.metadata_mut();
    if let Some(time) = failure.retry_after() {
        metadata.insert(RETRY_AFTER, retry_after(time).into());
    }
    if let Some(version) = failure.version() {
        let mut headers = HeaderMap::new();
        version_header(&mut headers, version);
        metadata.as_mut().extend(headers);
    }
    status
}

/// The status of an error, which is logged.
pub(super) fn refuse(key: &inference::ModelKey, error: Error) -> Status {
    let failure = Failure::from(error);
    crate::infer::log(key, &failure, &failure.status(false));
    status(&failure)
}

fn clip(message: &str) -> String {
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    format!("{}…", &message[..message.floor_char_boundary(MAX_MESSAGE)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_codes_and_long_messages_are_cut_between_characters() {
        let status = status(&Error::not_found("é".repeat(MAX_MESSAGE)).into());
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().len() < MAX_MESSAGE + 4 && status.message().ends_with("é…"), "{status}");
        assert_eq!(super::status(&Error::no_room("x").into()).code(), Code::ResourceExhausted);
        assert_eq!(super::status(&Error::unsupported("x").into()).code(), Code::Unimplemented);
    }
}

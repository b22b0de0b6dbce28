//! What an error of the S3 client means to the caller, and what the operator should check.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use inference::{Error, TargetModel};

use crate::store::replaced;
use crate::store::retrier::Failed;
use crate::store::retry::Fault;

/// A bucket and a prefix.
pub(super) struct Place {
    pub(super) bucket: String,
    /// Empty, or ends with `/`.
    pub(super) prefix: String,
    pub(super) location: String,
    server: String,
}

impl Place {
    pub(super) fn new(bucket: String, prefix: String, endpoint: Option<String>) -> Self {
        let location = format!("s3://{bucket}/{prefix}");
        let server = endpoint.unwrap_or_else(|| "the SDK's default endpoint".to_owned());
        Place { bucket, prefix, location, server }
    }

    /// The error for an archive that is not there.
    pub(super) fn missing(&self, target: &TargetModel) -> Error {
        let Place { bucket, prefix, .. } = self;
        Error::not_found(format!("no archive '{target}' in bucket '{bucket}' under prefix '{prefix}'"))
            .with_model(target.as_str())
    }

    /// The object that holds an archive.
    pub(super) fn key(&self, target: &TargetModel) -> String {
        format!("{}{target}", self.prefix)
    }
}

/// Puts an SDK error into our terms.
pub(super) fn describe<E>(place: &Place, target: &TargetModel, error: SdkError<E, HttpResponse>) -> Failed
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let fault = fault(&error);
    Failed { error: describe_error(place, target, error), fault }
}

/// As [`describe`], of a listing.
pub(super) fn describe_listing<E>(place: &Place, error: SdkError<E, HttpResponse>) -> Failed
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let fault = fault(&error);
    let code = error.code().unwrap_or("no answer").to_owned();
    let message = format!("cannot list {}: {code}; check that s3:ListBucket is allowed", place.location);
    Failed { error: Error::unavailable(message).with_source(error), fault }
}

/// Whether the same request may do better.
fn fault<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Fault {
    let Some(response) = error.raw_response() else {
        return match error {
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) => Fault::Passing,
            SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout() => Fault::Passing,
            // A connection that ends amid an answer; without a kind it is about credentials or certificates.
            SdkError::DispatchFailure(failure) if failure.as_other().is_some() => Fault::Passing,
            _ => Fault::Lasting,
        };
    };
    match (response.status().as_u16(), error.code()) {
        (429 | 503, _) | (_, Some("SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded")) => {
            Fault::Busy(response.headers().get("retry-after").and_then(retry_after))
        }
        (200..=299 | 408 | 500..=599, _) | (_, Some("RequestTimeout")) => Fault::Passing,
        // The client has learnt the server's time by now, and signs the next request by that.
        (403, _) if response.headers().get("date").is_some_and(|date| is_skewed(date, SystemTime::now())) => {
            Fault::Passing
        }
        _ => Fault::Lasting,
    }
}

/// A clock that is off by more makes the client sign by the server's clock.
const LARGEST_SKEW: Duration = Duration::from_secs(4 * 60);

/// Whether a server's `Date` differs from our time so much that signatures may not count.
fn is_skewed(date: &str, now: SystemTime) -> bool {
    let date = DateTime::from_str(date, DateTimeFormat::HttpDate).ok().and_then(|date| SystemTime::try_from(date).ok());
    date.is_some_and(|date| date.duration_since(now).unwrap_or_else(|earlier| earlier.duration()) > LARGEST_SKEW)
}

/// The header's value where it is a number of seconds, as S3 servers write it.
fn retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

fn describe_error<E>(place: &Place, target: &TargetModel, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let described = match (status, error.code()) {
        (Some(404), code) => missing(place, target, code),
        (Some(412), _) => return replaced(target, &place.location),
        (Some(status @ (401 | 403)), code) => denied(place, target, status, code),
        (Some(status), code) => Error::unavailable(format!(
            "the server of {} answered {status} {} for '{target}'; check the bucket, the region and the endpoint ({})",
            place.location,
            code.unwrap_or_default(),
            place.server
        )),
        (None, _) => unreachable(place, target, &error),
    };
    described.with_model(target.as_str()).with_source(error)
}

fn missing(place: &Place, target: &TargetModel, code: Option<&str>) -> Error {
    if code == Some("NoSuchBucket") {
        let message = format!("bucket '{}' does not exist; check --model-store and --s3-endpoint", place.bucket);
        return Error::unavailable(message);
    }
    place.missing(target)
}

/// The error for a 404 that names neither a key nor a bucket as missing.
pub(super) fn not_s3(place: &Place, target: &TargetModel, error: Error) -> Error {
    Error::unavailable(format!(
        "the server of {} ({}) answered 404 for '{target}', but not as S3 does; check that --s3-endpoint is the address of \
         an S3 server",
        place.location, place.server
    ))
    .with_model(target.as_str())
    .with_source(error)
}

fn denied(place: &Place, target: &TargetModel, status: u16, code: Option<&str>) -> Error {
    Error::unavailable(format!(
        "access to '{target}' in {} was denied ({status} {}); check the credentials and that they allow s3:GetObject \
         and s3:ListBucket (without the latter a missing archive looks like this, too)",
        place.location,
        code.unwrap_or("AccessDenied")
    ))
}

fn unreachable<E>(place: &Place, target: &TargetModel, error: &SdkError<E, HttpResponse>) -> Error
where
    E: std::error::Error + 'static,
{
    // The SDK's own message only says "dispatch failure"; what happened is at the end of the chain.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let mut advice = "check the endpoint, the network and the credentials";
    if let SdkError::DispatchFailure(failure) = error {
        advice = if failure.is_io() || failure.is_timeout() {
            "check the endpoint and the network"
        } else {
            "check the endpoint, its certificate and the credentials"
        };
    }
    let Place { location, server, .. } = place;
    Error::unavailable(format!("cannot get '{target}' from {location} ({server}): {cause}; {advice}"))
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::error::ErrorMetadata;
    use aws_sdk_s3::operation::get_object::GetObjectError;
    use aws_sdk_s3::primitives::SdkBody;

    use super::*;

    fn answer(status: u16, code: &str, headers: &[(&'static str, &str)]) -> Fault {
        let error = GetObjectError::generic(ErrorMetadata::builder().code(code).build());
        let mut response = HttpResponse::new(status.try_into().expect("a status"), SdkBody::empty());
        for (name, value) in headers {
            response.headers_mut().insert(*name, (*value).to_owned());
        }
        fault(&SdkError::service_error(error, response))
    }

    #[test]
    fn errors_say_whether_to_try_again() {
        for (status, code) in [(500, "InternalError"), (502, ""), (504, ""), (408, ""), (400, "RequestTimeout")] {
            assert_eq!(answer(status, code, &[]), Fault::Passing, "{status} {code}");
        }
        for (status, code) in [(404, "NoSuchKey"), (403, "AccessDenied"), (412, ""), (416, ""), (400, "InvalidRequest")]
        {
            assert_eq!(answer(status, code, &[]), Fault::Lasting, "{status} {code}");
        }
        let seconds = |seconds| Fault::Busy(Some(Duration::from_secs(seconds)));
        assert_eq!(answer(503, "SlowDown", &[]), Fault::Busy(None));
        assert_eq!(answer(503, "SlowDown", &[("retry-after", "7")]), seconds(7));
        assert_eq!(answer(429, "", &[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]), Fault::Busy(None));
        let long_ago = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(answer(403, "RequestTimeTooSkewed", &[long_ago]), Fault::Passing);
        let now = DateTime::from(SystemTime::now()).fmt(DateTimeFormat::HttpDate).expect("a date");
        assert_eq!(answer(403, "AccessDenied", &[("date", &now)]), Fault::Lasting);
    }
}

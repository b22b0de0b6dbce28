//! A model store in S3, or in anything that speaks its protocol.

mod config;
mod error;
mod list;
mod object;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{ChecksumMode, ChecksumType};
use inference::{BoxFuture, Error, ErrorKind, Result, TargetModel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::checksum::{Checksum, ChecksumAlgorithm};
use super::resume::{TryLimits, read_range};
use super::retrier::{Failed, Retrier, Try};
use super::{Listing, ModelStore, ObjectBytes, ObjectInfo, Operation, count_request};
use error::{Place, describe, not_s3};
use object::S3Object;

pub use config::{S3Config, S3Credentials};

/// Archives in a bucket, below a prefix.
pub struct S3Store {
    bucket: Arc<Bucket>,
    retrier: Arc<Retrier>,
    limits: TryLimits,
    /// The bucket exists: an archive was found in it, or the server said that just the key is missing.
    bucket_was_seen: AtomicBool,
}

/// The client, and what it is told with every request.
struct Bucket {
    client: Client,
    place: Place,
    permit_timeout: Duration,
    permits: Arc<Semaphore>,
}

impl S3Store {
    /// Prepares a client. Nothing is asked of the bucket yet, so a store that is down for a moment does not keep the
    /// server from starting; credentials are looked for with the first request.
    pub async fn connect(config: S3Config) -> Self {
        let mut prefix = config.prefix.trim_start_matches('/').to_owned();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let one_try = config.connect_timeout + config.read_timeout;
        let bucket = Bucket {
            client: config::client(&config).await,
            place: Place::new(config.bucket, prefix, config.endpoint),
            permit_timeout: one_try,
            permits: Arc::new(Semaphore::new(config.connections.get())),
        };
        S3Store {
            bucket: Arc::new(bucket),
            retrier: Arc::new(Retrier::new(config.max_attempts, one_try)),
            limits: TryLimits { silence: config.read_timeout, whole: config.part_timeout },
            bucket_was_seen: AtomicBool::new(false),
        }
    }

    async fn head_once(&self, target: &TargetModel) -> Try<ObjectInfo> {
        // What is never asked is no request.
        let _permit = self.bucket.permit(target).await?;
        let result = self.head_object(target).await;
        count_request(Operation::Head, result.as_ref().err().map(|failed| &failed.error));
        result
    }

    async fn head_object(&self, target: &TargetModel) -> Try<ObjectInfo> {
        let Bucket { client, place, .. } = &*self.bucket;
        let output = client
            .head_object()
            .bucket(&place.bucket)
            .key(place.key(target))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .map_err(|error| describe(place, target, error));
        let output = match output {
            Err(Failed { error, .. }) if error.kind() == ErrorKind::NotFound => {
                return Err(self.check_bucket(target, error).await);
            }
            output => output?,
        };
        self.bucket_was_seen.store(true, Ordering::Relaxed);
        place.info(target, &output).map_err(Failed::passing)
    }

    /// The answer to HEAD has no body, so that a missing bucket and an address that is no S3 server look like a missing
    /// archive. GET tells them apart; once the bucket is known to be there, it is not asked again.
    async fn check_bucket(&self, target: &TargetModel, not_found: Error) -> Failed {
        if self.bucket_was_seen.load(Ordering::Relaxed) {
            return Failed::lasting(not_found);
        }
        match self.bucket.is_missing(target).await {
            Ok(_) => {
                self.bucket_was_seen.store(true, Ordering::Relaxed);
                Failed::lasting(not_found)
            }
            Err(failed) => failed,
        }
    }

    async fn is_missing_once(&self, target: &TargetModel) -> Try<bool> {
        let _permit = self.bucket.permit(target).await?;
        let result = self.bucket.is_missing(target).await;
        count_request(Operation::Get, result.as_ref().err().map(|failed| &failed.error));
        result
    }
}

impl Bucket {
    /// Whether the server says of this very archive that it is not there, as S3 says it.
    async fn is_missing(&self, target: &TargetModel) -> Try<bool> {
        let Bucket { client, place, .. } = self;
        let answer = client.get_object().bucket(&place.bucket).key(place.key(target)).range("bytes=0-0").send().await;
        let error = match answer {
            Ok(_) => return Ok(false),
            Err(error) if error.code() == Some("NoSuchKey") => return Ok(true),
            Err(error) => error,
        };
        let failed = describe(place, target, error);
        let is_404 = failed.error.kind() == ErrorKind::NotFound;
        Err(if is_404 { Failed::lasting(not_s3(place, target, failed.error)) } else { failed })
    }

    /// Waits until fewer connections are in use than the settings allow, but not for long.
    async fn connection(&self) -> Option<OwnedSemaphorePermit> {
        let permit = tokio::time::timeout(self.permit_timeout, self.permits.clone().acquire_owned()).await;
        permit.ok().map(|permit| permit.expect("invariant: never closed"))
    }

    /// [`Bucket::connection`] to ask about an archive.
    async fn permit(&self, target: &TargetModel) -> Try<OwnedSemaphorePermit> {
        self.connection().await.ok_or_else(|| {
            let Place { location, .. } = &self.place;
            let message = format!(
                "'{target}' was not asked for: {location} leaves too many earlier requests unanswered \
                 (--store-connections)"
            );
            Failed::lasting(Error::unavailable(message).with_model(target.as_str()))
        })
    }
}

impl Place {
    fn info(&self, target: &TargetModel, output: &HeadObjectOutput) -> Result<ObjectInfo> {
        let etag = output.e_tag.as_deref().ok_or_else(|| self.lacks(target, "an ETag"))?.into();
        let length = output.content_length.and_then(|length| u64::try_from(length).ok());
        let size = length.ok_or_else(|| self.lacks(target, "a length"))?;
        Ok(ObjectInfo { etag, size, checksum: checksum_of(output) })
    }
}

impl ModelStore for S3Store {
    fn location(&self) -> &str {
        &self.bucket.place.location
    }

    fn missing(&self, target: &TargetModel) -> Error {
        self.bucket.place.missing(target)
    }

    fn head<'a>(&'a self, target: &'a TargetModel) -> BoxFuture<'a, Result<ObjectInfo>> {
        Box::pin(self.retrier.call(Operation::Head, || self.head_once(target)))
    }

    fn list(&self) -> Option<Listing> {
        Some(self.pages())
    }

    fn is_missing<'a>(&'a self, target: &'a TargetModel) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.retrier.call(Operation::Get, || self.is_missing_once(target)))
    }

    fn get<'a>(
        &'a self,
        target: &'a TargetModel,
        info: &'a ObjectInfo,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<ObjectBytes>> {
        let (bucket, target, info) = (self.bucket.clone(), target.clone(), info.clone());
        let object = Arc::new(S3Object { bucket, target, info });
        Box::pin(read_range(object, range, self.retrier.clone(), self.limits))
    }
}

/// The first checksum of the whole object that the answer carries, cheapest first.
fn checksum_of(output: &HeadObjectOutput) -> Option<Checksum> {
    if output.checksum_type == Some(ChecksumType::Composite) {
        return None;
    }
    [
        (ChecksumAlgorithm::Crc64Nvme, &output.checksum_crc64_nvme),
        (ChecksumAlgorithm::Crc32c, &output.checksum_crc32_c),
        (ChecksumAlgorithm::Crc32, &output.checksum_crc32),
        (ChecksumAlgorithm::Sha1, &output.checksum_sha1),
        (ChecksumAlgorithm::Sha256, &output.checksum_sha256),
    ]
    .into_iter()
    .find_map(|(algorithm, value)| Checksum::from_header(algorithm, value.as_deref()?))
}

//! One version of an archive in a bucket, read in ranges.

use std::ops::Range;
use std::sync::Arc;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use futures::stream::{self, StreamExt};
use inference::{BoxFuture, Error, TargetModel};
use tokio::sync::OwnedSemaphorePermit;

use super::error::{Place, describe};
use super::{Bucket, ObjectInfo, Operation, count_request};
use crate::store::replaced;
use crate::store::resume::{Ranges, TryBytes};
use crate::store::retrier::{Failed, Try};

/// What a key named when its ETag was learnt.
pub(super) struct S3Object {
    pub(super) bucket: Arc<Bucket>,
    pub(super) target: TargetModel,
    pub(super) info: ObjectInfo,
}

impl S3Object {
    // The checksum mode stays off: the checksum is known from HEAD, and verified once, where the bytes are unpacked.
    async fn open_once(&self, range: Range<u64>, permit: OwnedSemaphorePermit) -> Try<TryBytes> {
        let Bucket { client, place, .. } = &*self.bucket;
        let is_whole = range == (0..self.info.size);
        let output = client
            .get_object()
            .bucket(&place.bucket)
            .key(place.key(&self.target))
            .if_match(&*self.info.etag)
            .set_range((!is_whole).then(|| format!("bytes={}-{}", range.start, range.end - 1)))
            .send()
            .await
            .map_err(|error| describe(place, &self.target, error))?;
        self.check(&output, &range, is_whole)?;
        let (target, location) = (self.target.clone(), place.location.clone());
        let chunks = stream::unfold((output.body, permit), |(mut body, permit)| async move {
            body.next().await.map(|chunk| (chunk, (body, permit)))
        });
        let chunks = chunks.map(move |chunk| {
            chunk.map_err(|error| Failed::passing(broken(&target, &location, &error.to_string()).with_source(error)))
        });
        Ok(chunks.boxed())
    }

    /// The answer must hold what was asked for, whatever its status says.
    fn check(&self, output: &GetObjectOutput, range: &Range<u64>, is_whole: bool) -> Try<()> {
        let (place, target) = (&self.bucket.place, &self.target);
        let etag = output.e_tag.as_deref().ok_or_else(|| Failed::passing(place.lacks(target, "an ETag")))?;
        if etag != &*self.info.etag {
            // A server that ignores If-Match.
            return Err(Failed::lasting(replaced(target, &place.location)));
        }
        let expected = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), self.info.size);
        match output.content_range.as_deref() {
            None if is_whole => {}
            Some(found) if found == expected => {}
            None => return Err(Failed::lasting(place.ignores_ranges(target))),
            Some(found) => {
                let message = format!(
                    "the server of {} answered with '{found}' where '{expected}' was asked for",
                    place.location
                );
                return Err(Failed::passing(Error::unavailable(message).with_model(target.as_str())));
            }
        }
        let length = output.content_length.and_then(|length| u64::try_from(length).ok());
        if length.is_some_and(|length| length != range.end - range.start) {
            let message = format!(
                "the server of {} announced {} bytes of '{target}' instead of {}",
                place.location,
                length.unwrap_or_default(),
                range.end - range.start
            );
            return Err(Failed::passing(Error::unavailable(message).with_model(target.as_str())));
        }
        Ok(())
    }
}

impl Ranges for S3Object {
    fn open(&self, range: Range<u64>) -> BoxFuture<'_, Try<TryBytes>> {
        Box::pin(async move {
            // What is never asked is no request.
            let permit = self.bucket.permit(&self.target).await?;
            let result = self.open_once(range, permit).await;
            count_request(Operation::Get, result.as_ref().err().map(|failed| &failed.error));
            result
        })
    }

    fn broken(&self, why: &str) -> Error {
        broken(&self.target, &self.bucket.place.location, why)
    }
}

fn broken(target: &TargetModel, location: &str, why: &str) -> Error {
    Error::unavailable(format!("the download of '{target}' from {location} broke off: {why}"))
        .with_model(target.as_str())
}

impl Place {
    /// The error for an answer without something that every answer must have.
    pub(super) fn lacks(&self, target: &TargetModel, what: &str) -> Error {
        let message = format!("the server of {} answered without {what} for '{target}'", self.location);
        Error::unavailable(message).with_model(target.as_str())
    }

    fn ignores_ranges(&self, target: &TargetModel) -> Error {
        let message = format!(
            "the server of {} ignores ranges of bytes, so that '{target}' can neither be read in parts (set \
             --download-part-size to more than any archive has) nor be read on where a download broke off",
            self.location
        );
        Error::unavailable(message).with_model(target.as_str())
    }
}

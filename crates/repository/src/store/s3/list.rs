//! Lists a bucket below the prefix, a page at a time.

use std::sync::Arc;

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::Object;
use futures::stream::{self, StreamExt};
use inference::{Error, TargetModel};

use super::error::{Place, describe_listing};
use super::{Bucket, S3Store};
use crate::store::listing::{ListedArchive, Listing, ListingPage};
use crate::store::retrier::{Failed, Try};
use crate::store::{Operation, count_request};

impl S3Store {
    /// Everything below the prefix.
    pub(super) fn pages(&self) -> Listing {
        let (bucket, retrier) = (self.bucket.clone(), self.retrier.clone());
        stream::try_unfold(Some(None::<String>), move |next| {
            let (bucket, retrier) = (bucket.clone(), retrier.clone());
            async move {
                let Some(token) = next else { return Ok(None) };
                let output = retrier.call(Operation::List, || bucket.list_once(token.clone())).await?;
                let archives = output.contents().iter().filter_map(|object| bucket.place.listed(object)).collect();
                let token = output.next_continuation_token.filter(|_| output.is_truncated == Some(true));
                Ok(Some((ListingPage { archives, is_last: token.is_none() }, token.map(Some))))
            }
        })
        .boxed()
    }
}

impl Bucket {
    async fn list_once(self: &Arc<Self>, token: Option<String>) -> Try<ListObjectsV2Output> {
        let Bucket { client, place, .. } = &**self;
        let _permit = self.connection().await.ok_or_else(|| {
            let message = format!("{} was not listed: too many earlier requests are unanswered", place.location);
            Failed::lasting(Error::unavailable(message))
        })?;
        let request = client.list_objects_v2().bucket(&place.bucket).prefix(&place.prefix);
        let listed = request.set_continuation_token(token).send().await;
        let listed = listed.map_err(|error| describe_listing(place, error));
        count_request(Operation::List, listed.as_ref().err().map(|failed| &failed.error));
        listed
    }
}

impl Place {
    /// What is no target model's key is nobody's archive.
    fn listed(&self, object: &Object) -> Option<ListedArchive> {
        let target = TargetModel::new(object.key()?.strip_prefix(&*self.prefix)?).ok()?;
        Some(ListedArchive { target, etag: object.e_tag()?.into() })
    }
}

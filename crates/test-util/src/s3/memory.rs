//! One bucket in memory.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use s3s::dto::{
    ChecksumType, ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
    ListObjectsV2Input, ListObjectsV2Output, Object as ListedObject, StreamingBlob,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::{Access, Server, build};

/// How much a body's stream yields at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// An S3 server with one bucket, in memory.
///
/// It knows `ListObjectsV2` below a prefix, `HeadObject` and `GetObject` with ranges, `If-Match` (412) and `If-None-Match` (304),
/// ETags that change with the content, and checksum headers as they were put; it counts requests per key.
pub struct MemoryS3 {
    bucket: Bucket,
    server: Server,
}

/// A checksum that the server reports for an object, as the base64 of its header, right or wrong.
#[derive(Clone, Debug)]
pub enum ObjectChecksum {
    /// `x-amz-checksum-crc32`.
    Crc32(String),
    /// `x-amz-checksum-crc64nvme`.
    Crc64Nvme(String),
    /// `x-amz-checksum-sha256`.
    Sha256(String),
    /// `x-amz-checksum-crc32` of a multipart upload: `BASE64-PARTS`, type COMPOSITE.
    CompositeCrc32(String),
}

#[derive(Clone, Default)]
struct Bucket(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    objects: BTreeMap<String, Object>,
    lists: u64,
    page: Option<usize>,
    heads: HashMap<String, u64>,
    gets: HashMap<String, u64>,
    latency: Duration,
    chunk_delay: Duration,
}

#[derive(Clone)]
struct Object {
    content: Bytes,
    etag: String,
    checksum: Option<ObjectChecksum>,
    broken_after: Option<usize>,
}

impl MemoryS3 {
    /// The bucket's name.
    pub const BUCKET: &str = "models";

    /// Serves an empty bucket on a free port until dropped; requests must be signed.
    pub async fn start() -> Self {
        Self::start_with(Access::Signed).await
    }

    /// Like [`MemoryS3::start`], for signed requests or for unsigned ones.
    pub async fn start_with(access: Access) -> Self {
        let bucket = Bucket::default();
        let server = Server::start(build(bucket.clone(), access)).await;
        MemoryS3 { bucket, server }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.server.endpoint
    }

    /// Puts or replaces an object; returns its ETag, quotes included.
    pub fn put(&self, key: &str, content: impl Into<Bytes>) -> String {
        self.insert(key, content.into(), None, None)
    }

    /// Puts an object that reports a checksum.
    pub fn put_with_checksum(&self, key: &str, content: impl Into<Bytes>, checksum: ObjectChecksum) -> String {
        self.insert(key, content.into(), Some(checksum), None)
    }

    /// Puts an object whose body breaks off with the connection after `broken_after` bytes.
    pub fn put_broken(&self, key: &str, content: impl Into<Bytes>, broken_after: usize) -> String {
        self.insert(key, content.into(), None, Some(broken_after))
    }

    /// Removes an object.
    pub fn delete(&self, key: &str) {
        self.bucket.0.lock().objects.remove(key);
    }

    /// How long every answer is held back.
    pub fn set_latency(&self, latency: Duration) {
        self.bucket.0.lock().latency = latency;
    }

    /// How long each 64 KiB of a body is held back, also of those that are under way.
    pub fn set_chunk_delay(&self, delay: Duration) {
        self.bucket.0.lock().chunk_delay = delay;
    }

    /// How many HEAD requests there were for a key, failed ones included.
    pub fn heads(&self, key: &str) -> u64 {
        self.bucket.0.lock().heads.get(key).copied().unwrap_or_default()
    }

    /// How many GET requests there were for a key, failed ones included.
    pub fn gets(&self, key: &str) -> u64 {
        self.bucket.0.lock().gets.get(key).copied().unwrap_or_default()
    }

    /// How many pages of listings there were.
    pub fn lists(&self) -> u64 {
        self.bucket.0.lock().lists
    }

    /// How many keys a page of a listing has at most; 1000 when not said.
    pub fn set_page(&self, keys: usize) {
        self.bucket.0.lock().page = Some(keys);
    }

    /// How many requests there were for any key, failed ones included.
    pub fn requests(&self) -> u64 {
        let contents = self.bucket.0.lock();
        contents.heads.values().chain(contents.gets.values()).sum()
    }

    fn insert(
        &self,
        key: &str,
        content: Bytes,
        checksum: Option<ObjectChecksum>,
        broken_after: Option<usize>,
    ) -> String {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let etag = format!("{:016x}{:016x}", hasher.finish(), content.len());
        let object = Object { content, etag: etag.clone(), checksum, broken_after };
        self.bucket.0.lock().objects.insert(key.to_owned(), object);
        format!("\"{etag}\"")
    }
}

impl Bucket {
    /// Waits, then finds an object whose state satisfies the conditions.
    async fn find(
        &self,
        (bucket, key): (&str, &str),
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<Object> {
        let latency = self.0.lock().latency;
        tokio::time::sleep(latency).await;
        if bucket != MemoryS3::BUCKET {
            return Err(s3_error!(NoSuchBucket));
        }
        let object = self.0.lock().objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))?;
        let holds = |condition: &ETagCondition| match condition {
            ETagCondition::ETag(etag) => etag.value() == object.etag,
            ETagCondition::Any => true,
        };
        if if_match.is_some_and(|condition| !holds(condition)) {
            return Err(s3_error!(PreconditionFailed));
        }
        if if_none_match.is_some_and(holds) {
            return Err(s3_error!(NotModified));
        }
        Ok(object)
    }
}

#[async_trait::async_trait]
impl S3 for Bucket {
    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        *self.0.lock().heads.entry(input.key.clone()).or_default() += 1;
        let place = (input.bucket.as_str(), input.key.as_str());
        let object = self.find(place, input.if_match.as_ref(), input.if_none_match.as_ref()).await?;
        let mut output = HeadObjectOutput {
            content_length: Some(length(&object.content)),
            e_tag: Some(ETag::Strong(object.etag)),
            ..HeadObjectOutput::default()
        };
        if input.checksum_mode.is_some() {
            let kind = match object.checksum {
                Some(ObjectChecksum::CompositeCrc32(_)) => ChecksumType::COMPOSITE,
                _ => ChecksumType::FULL_OBJECT,
            };
            output.checksum_type = object.checksum.is_some().then(|| ChecksumType::from_static(kind));
            match object.checksum {
                Some(ObjectChecksum::Crc32(value) | ObjectChecksum::CompositeCrc32(value)) => {
                    output.checksum_crc32 = Some(value);
                }
                Some(ObjectChecksum::Crc64Nvme(value)) => output.checksum_crc64nvme = Some(value),
                Some(ObjectChecksum::Sha256(value)) => output.checksum_sha256 = Some(value),
                None => {}
            }
        }
        Ok(S3Response::new(output))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        if input.bucket != MemoryS3::BUCKET {
            return Err(s3_error!(NoSuchBucket));
        }
        let mut contents = self.0.lock();
        contents.lists += 1;
        let (prefix, after) = (input.prefix.unwrap_or_default(), input.continuation_token.unwrap_or_default());
        let wanted = contents.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let listed: Vec<ListedObject> = wanted.map(|(key, object)| list(key, object)).collect();
        let page = listed.len().min(contents.page.unwrap_or(1000));
        let is_truncated = page < listed.len();
        let next = listed[..page].last().and_then(|last| last.key.clone()).filter(|_| is_truncated);
        Ok(S3Response::new(ListObjectsV2Output {
            contents: Some(listed.into_iter().take(page).collect()),
            is_truncated: Some(is_truncated),
            next_continuation_token: next,
            ..ListObjectsV2Output::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        *self.0.lock().gets.entry(input.key.clone()).or_default() += 1;
        let place = (input.bucket.as_str(), input.key.as_str());
        let object = self.find(place, input.if_match.as_ref(), input.if_none_match.as_ref()).await?;
        let total = object.content.len();
        let (mut content, mut content_range) = (object.content, None);
        if let Some(range) = input.range {
            let range = range.check(total as u64)?;
            content_range = Some(format!("bytes {}-{}/{total}", range.start, range.end - 1));
            let index = |position: u64| usize::try_from(position).expect("invariant: within the content");
            content = content.slice(index(range.start)..index(range.end));
        }
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(length(&content)),
            content_range,
            e_tag: Some(ETag::Strong(object.etag)),
            body: Some(body(content, object.broken_after, self.clone())),
            ..GetObjectOutput::default()
        }))
    }
}

fn list(key: &str, object: &Object) -> ListedObject {
    ListedObject {
        key: Some(key.to_owned()),
        e_tag: Some(ETag::Strong(object.etag.clone())),
        size: Some(length(&object.content)),
        ..ListedObject::default()
    }
}

fn length(content: &Bytes) -> i64 {
    i64::try_from(content.len()).expect("invariant: memory is smaller than 8 EiB")
}

fn body(content: Bytes, broken_after: Option<usize>, bucket: Bucket) -> StreamingBlob {
    let kept = content.slice(..broken_after.unwrap_or(content.len()).min(content.len()));
    let mut chunks: Vec<std::io::Result<Bytes>> =
        (0..kept.len()).step_by(CHUNK_BYTES).map(|at| Ok(kept.slice(at..kept.len().min(at + CHUNK_BYTES)))).collect();
    if broken_after.is_some() {
        chunks.push(Err(std::io::Error::other("the server breaks off here")));
    }
    StreamingBlob::wrap(stream::iter(chunks).then(move |chunk| {
        let delay = bucket.0.lock().chunk_delay;
        async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            chunk
        }
    }))
}

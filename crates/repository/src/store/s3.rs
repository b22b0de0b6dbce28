//! A model store in S3, or in anything that speaks its protocol.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumMode, ChecksumType};
use aws_smithy_http_client::tls;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use inference::{BoxFuture, Error, ErrorKind, Result, TargetModel};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::checksum::{Checksum, ChecksumAlgorithm};
use super::s3_error::{Place, describe, not_s3};
use super::{ModelStore, ObjectBody, ObjectInfo, Operation, count_request, replaced};

/// Where a bucket is and how to talk to it.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// The bucket's name.
    pub bucket: String,
    /// What comes before every key; a `/` is added at its end unless it is empty.
    pub prefix: String,
    /// The server's address, `http://127.0.0.1:9000`; AWS (or what the SDK's own settings say) when absent.
    pub endpoint: Option<String>,
    /// The region; what the SDK's own settings say when absent, and `us-east-1` when they say nothing.
    pub region: Option<String>,
    /// Whether the bucket's name goes into the path instead of the host name.
    pub path_style: bool,
    /// Who signs the requests.
    pub credentials: S3Credentials,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest wait for an answer, and for the next bytes of a body.
    pub read_timeout: Duration,
    /// How often a request is tried before its error is reported; at least 1.
    pub max_attempts: u32,
    /// Requests that may be under way at the same time, at least 1, while their answers' headers are awaited; further ones
    /// wait, for as long as one request may take. The SDK has no such bound of its own.
    pub concurrent_requests: usize,
}

impl S3Config {
    /// A bucket and a prefix, with the SDK's own credentials and ordinary timeouts.
    pub fn new(bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        S3Config {
            bucket: bucket.into(),
            prefix: prefix.into(),
            endpoint: None,
            region: None,
            path_style: false,
            credentials: S3Credentials::DefaultChain,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            max_attempts: 3,
            concurrent_requests: 64,
        }
    }
}

/// Who signs the requests.
#[derive(Clone, Default)]
pub enum S3Credentials {
    /// The AWS SDK's whole default chain: environment, profiles, web identity, containers, instances.
    #[default]
    DefaultChain,
    /// Nobody: the bucket is public.
    Anonymous,
    /// A fixed key pair.
    Keys {
        /// The access key's id.
        access_key_id: String,
        /// The secret that goes with it.
        secret_access_key: String,
    },
}

/// Without the secret.
impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            S3Credentials::DefaultChain => f.write_str("DefaultChain"),
            S3Credentials::Anonymous => f.write_str("Anonymous"),
            S3Credentials::Keys { access_key_id, .. } => write!(f, "Keys({access_key_id})"),
        }
    }
}

/// Archives in a bucket, below a prefix.
pub struct S3Store {
    client: Client,
    place: Place,
    read_timeout: Duration,
    permit_timeout: Duration,
    permits: Semaphore,
    /// The bucket exists: an archive was found in it, or the server said that just the key is missing.
    bucket_was_seen: AtomicBool,
}

impl S3Store {
    /// Prepares a client. Nothing is asked of the bucket yet, so a store that is down for a moment does not keep the
    /// server from starting; credentials are looked for with the first request.
    pub async fn connect(config: S3Config) -> Self {
        let mut prefix = config.prefix.trim_start_matches('/').to_owned();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let shared = shared_config(&config).await;
        let client_config = aws_sdk_s3::config::Builder::from(&shared)
            .force_path_style(config.path_style)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        S3Store {
            client: Client::from_conf(client_config),
            place: Place::new(config.bucket, prefix, config.endpoint),
            read_timeout: config.read_timeout,
            permit_timeout: config.connect_timeout + config.read_timeout,
            permits: Semaphore::new(config.concurrent_requests.max(1)),
            bucket_was_seen: AtomicBool::new(false),
        }
    }

    async fn head_object(&self, target: &TargetModel) -> Result<ObjectInfo> {
        let output = self
            .client
            .head_object()
            .bucket(&self.place.bucket)
            .key(self.place.key(target))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .map_err(|error| describe(&self.place, target, error));
        let output = match output {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.check_bucket(target, error).await),
            output => output?,
        };
        self.bucket_was_seen.store(true, Ordering::Relaxed);
        let checksum = checksum_of(&output);
        self.info(target, output.e_tag.as_deref(), output.content_length, checksum)
    }

    /// The answer to HEAD has no body, so that a missing bucket and an address that is no S3 server look like a missing
    /// archive. GET tells them apart; once the bucket is known to be there, it is not asked again.
    async fn check_bucket(&self, target: &TargetModel, not_found: Error) -> Error {
        if self.bucket_was_seen.load(Ordering::Relaxed) {
            return not_found;
        }
        let key = self.place.key(target);
        let answer = self.client.get_object().bucket(&self.place.bucket).key(key).range("bytes=0-0").send().await;
        if let Err(error) = answer
            && error.code() != Some("NoSuchKey")
        {
            let error = describe(&self.place, target, error);
            return if error.kind() == ErrorKind::NotFound { not_s3(&self.place, target, error) } else { error };
        }
        self.bucket_was_seen.store(true, Ordering::Relaxed);
        not_found
    }

    /// Waits until fewer requests are under way than the settings allow.
    async fn permit(&self, target: &TargetModel) -> Result<SemaphorePermit<'_>> {
        let permit = tokio::time::timeout(self.permit_timeout, self.permits.acquire()).await;
        permit.map(|permit| permit.expect("invariant: never closed")).map_err(|_| {
            let Place { location, .. } = &self.place;
            let message =
                format!("'{target}' was not asked for: {location} leaves too many earlier requests unanswered");
            Error::unavailable(message).with_model(target.as_str())
        })
    }

    // The checksum mode stays off: the checksum is known from HEAD, and verified once, where the bytes are unpacked.
    async fn get_object(&self, target: &TargetModel, etag: &str) -> Result<ObjectBody> {
        let output = self
            .client
            .get_object()
            .bucket(&self.place.bucket)
            .key(self.place.key(target))
            .if_match(etag)
            .send()
            .await
            .map_err(|error| describe(&self.place, target, error))?;
        let info = self.info(target, output.e_tag.as_deref(), output.content_length, None)?;
        if &*info.etag != etag {
            // A server that ignores If-Match.
            return Err(replaced(target, &self.place.location));
        }
        Ok(ObjectBody { info, bytes: self.body_stream(target, output.body) })
    }

    fn info(
        &self,
        target: &TargetModel,
        etag: Option<&str>,
        length: Option<i64>,
        checksum: Option<Checksum>,
    ) -> Result<ObjectInfo> {
        let lacks = |what: &str| {
            let location = &self.place.location;
            Error::unavailable(format!("the server of {location} answered without {what} for '{target}'"))
                .with_model(target.as_str())
        };
        let etag: Arc<str> = etag.ok_or_else(|| lacks("an ETag"))?.into();
        let size = length.and_then(|length| u64::try_from(length).ok()).ok_or_else(|| lacks("a length"))?;
        Ok(ObjectInfo { etag, size, checksum })
    }

    fn body_stream(&self, target: &TargetModel, body: ByteStream) -> BoxStream<'static, Result<Bytes>> {
        let wait = self.read_timeout;
        let (target, location) = (target.clone(), self.place.location.clone());
        stream::try_unfold(body, move |mut body| {
            let (target, location) = (target.clone(), location.clone());
            async move {
                let broken = |why: String| {
                    Error::unavailable(format!("the download of '{target}' from {location} broke off: {why}"))
                        .with_model(target.as_str())
                };
                match tokio::time::timeout(wait, body.next()).await {
                    Err(_) => Err(broken(format!("no bytes came for {} s", wait.as_secs_f32()))),
                    Ok(None) => Ok(None),
                    Ok(Some(Ok(chunk))) => Ok(Some((chunk, body))),
                    Ok(Some(Err(error))) => Err(broken(error.to_string()).with_source(error)),
                }
            }
        })
        .boxed()
    }
}

impl ModelStore for S3Store {
    fn location(&self) -> &str {
        &self.place.location
    }

    fn head<'a>(&'a self, target: &'a TargetModel) -> BoxFuture<'a, Result<ObjectInfo>> {
        Box::pin(async move {
            let _permit = self.permit(target).await?;
            let result = self.head_object(target).await;
            count_request(Operation::Head, &result);
            result
        })
    }

    fn get<'a>(&'a self, target: &'a TargetModel, etag: &'a str) -> BoxFuture<'a, Result<ObjectBody>> {
        Box::pin(async move {
            let _permit = self.permit(target).await?;
            let result = self.get_object(target, etag).await;
            count_request(Operation::Get, &result);
            result
        })
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

async fn shared_config(config: &S3Config) -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(config.connect_timeout)
        .read_timeout(config.read_timeout)
        .operation_attempt_timeout(config.connect_timeout + config.read_timeout)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(config.max_attempts.max(1)))
        // A body that stalls is noticed by `body_stream`, with the operator's own timeout.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(endpoint) = &config.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    } else if config.endpoint.is_some() {
        // Without the SDK's last resort, asking the instance's metadata service: where the endpoint is not AWS's own that
        // service is mostly not there, and start-up would wait for it.
        let settings = EnvironmentVariableRegionProvider::new();
        loader = loader.region(RegionProviderChain::first_try(settings).or_else(ProfileFileRegionProvider::new()));
    }
    loader = match &config.credentials {
        S3Credentials::DefaultChain => loader,
        S3Credentials::Anonymous => loader.no_credentials(),
        S3Credentials::Keys { access_key_id, secret_access_key } => {
            loader.credentials_provider(Credentials::new(access_key_id, secret_access_key, None, None, "settings"))
        }
    };
    let shared = loader.load().await;
    if shared.region().is_some() {
        return shared;
    }
    shared.into_builder().region(Region::from_static("us-east-1")).build()
}

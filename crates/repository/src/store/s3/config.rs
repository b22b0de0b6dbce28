//! Where a bucket is, who signs requests, and the client that is made of it.

use std::fmt;
use std::num::NonZeroUsize;
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
use aws_smithy_http_client::tls;

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
    /// The longest wait for all the bytes of one range; the rest is then asked for anew.
    pub part_timeout: Duration,
    /// How often a request is tried in a row, without any progress, before its error is reported; at least 1.
    pub max_attempts: u32,
    /// Connections that may be in use at the same time, and that are kept when they are not; further requests wait, for as
    /// long as one request may take. The SDK has no such bound of its own.
    pub connections: NonZeroUsize,
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
            part_timeout: Duration::from_secs(60),
            max_attempts: 4,
            connections: NonZeroUsize::new(64).expect("invariant: not zero"),
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

/// A client with these settings. It tries nothing twice: that is the [retrier](crate::store::retrier)'s part.
pub(super) async fn client(config: &S3Config) -> Client {
    let shared = shared_config(config).await;
    let client_config = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(config.path_style)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(client_config)
}

async fn shared_config(config: &S3Config) -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .pool_max_idle_per_host(config.connections.get())
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
        .retry_config(RetryConfig::disabled())
        // A body that stalls is noticed where it is read, with the operator's own timeout.
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

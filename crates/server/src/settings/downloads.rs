//! Options about downloads and what the store is asked, and their checks.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use repository::{DownloadConfig, S3Config};

use super::Check;

#[derive(Debug, Args)]
#[command(next_help_heading = "Downloads")]
pub(crate) struct DownloadArgs {
    /// How many archives are downloaded at once; those that a request waits for go before all others
    #[arg(long, env = "PANOPLY_DOWNLOAD_CONCURRENCY", value_name = "N", default_value = "8")]
    download_concurrency: usize,
    /// Archives of more bytes are downloaded in parts of so many, several at once
    #[arg(long, env = "PANOPLY_DOWNLOAD_PART_SIZE", value_name = "SIZE", default_value = "8MiB")]
    download_part_size: ByteSize,
    /// How many parts of all archives are downloaded at once; so many times the part size is what downloads hold in memory
    #[arg(long, env = "PANOPLY_DOWNLOAD_PARTS", value_name = "N", default_value = "16")]
    download_parts: usize,
    /// How long the store may take over one part, before the rest of it is asked for anew
    #[arg(long, env = "PANOPLY_DOWNLOAD_PART_TIMEOUT", value_name = "TIME", default_value = "60s")]
    download_part_timeout: humantime::Duration,
    /// How long one download may take
    #[arg(long, env = "PANOPLY_DOWNLOAD_TIMEOUT", value_name = "TIME", default_value = "10m")]
    download_timeout: humantime::Duration,
    /// Bytes per second of all downloads together [default: no bound]
    #[arg(long, env = "PANOPLY_DOWNLOAD_BANDWIDTH", value_name = "SIZE")]
    download_bandwidth: Option<ByteSize>,
    /// How many connections to an S3 store are in use at once, and kept when they are not
    #[arg(long, env = "PANOPLY_STORE_CONNECTIONS", value_name = "N", default_value = "64")]
    store_connections: usize,
    /// How often a request to an S3 store is tried in a row when it leads nowhere
    #[arg(long, env = "PANOPLY_STORE_ATTEMPTS", value_name = "N", default_value = "4")]
    store_attempts: u32,
    /// How long an S3 store may keep silent before a try is given up
    #[arg(long, env = "PANOPLY_STORE_READ_TIMEOUT", value_name = "TIME", default_value = "30s")]
    store_read_timeout: humantime::Duration,
    /// How long a key is taken to be missing that the store did not have; 0s to ask the store for every request
    #[arg(long, env = "PANOPLY_MISSING_KEY_TTL", value_name = "TIME", default_value = "5s")]
    missing_key_ttl: humantime::Duration,
}

/// A part costs a request, whose head alone is some hundred bytes.
const SMALLEST_PART: ByteSize = ByteSize::kib(64);

/// What [`DownloadArgs`] come to.
#[derive(Clone, Debug)]
pub(crate) struct DownloadSettings {
    pub(crate) config: DownloadConfig,
    pub(crate) timeout: Duration,
    pub(crate) missing_key_ttl: Duration,
    part_timeout: Duration,
    connections: NonZeroUsize,
    attempts: u32,
    read_timeout: Duration,
}

impl DownloadSettings {
    /// A bucket's configuration with what concerns all stores.
    pub(crate) fn s3(&self, config: S3Config) -> S3Config {
        S3Config {
            part_timeout: self.part_timeout,
            connections: self.connections,
            max_attempts: self.attempts,
            read_timeout: self.read_timeout,
            ..config
        }
    }
}

impl Check {
    pub(super) fn downloads(&mut self, args: &DownloadArgs) -> DownloadSettings {
        let connections = self.connections("--store-connections", args.store_connections);
        let parts = self.count("--download-parts", args.download_parts);
        if parts >= connections {
            // Parts would keep every connection, and questions about archives would have none.
            self.problem(format!("--store-connections ({connections}) must be more than --download-parts ({parts})"));
        }
        let part_size = args.download_part_size;
        if part_size < SMALLEST_PART {
            self.problem(format!("--download-part-size ({part_size}) must be at least {SMALLEST_PART}"));
        }
        let bandwidth = args.download_bandwidth.map(|rate| self.positive("--download-bandwidth", rate.as_u64()));
        self.positive("--store-attempts", args.store_attempts.into());
        DownloadSettings {
            config: DownloadConfig {
                archives: self.count("--download-concurrency", args.download_concurrency),
                part_size: NonZeroU64::new(part_size.as_u64()).unwrap_or(NonZeroU64::MIN),
                parts,
                bandwidth: bandwidth.and_then(NonZeroU64::new),
            },
            timeout: self.duration("--download-timeout", args.download_timeout),
            missing_key_ttl: self.time("--missing-key-ttl", args.missing_key_ttl),
            part_timeout: self.duration("--download-part-timeout", args.download_part_timeout),
            connections,
            attempts: args.store_attempts,
            read_timeout: self.duration("--store-read-timeout", args.store_read_timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    #[test]
    fn bounds_on_downloads_reach_the_store() {
        let args = ["--download-parts", "3", "--store-connections", "7", "--store-attempts", "2"];
        let times = ["--download-part-timeout", "4s", "--store-read-timeout", "5s", "--download-bandwidth", "1MiB"];
        let downloads = settings(&[&args[..], &times].concat()).expect("valid").downloads;
        assert_eq!((downloads.config.parts.get(), downloads.config.bandwidth.map(NonZeroU64::get)), (3, Some(1 << 20)));
        let s3 = downloads.s3(S3Config::new("bucket", ""));
        assert_eq!((s3.connections.get(), s3.max_attempts), (7, 2));
        assert_eq!([s3.part_timeout, s3.read_timeout], [4, 5].map(Duration::from_secs));
    }

    #[test]
    fn parts_are_no_smaller_than_their_requests_are_worth() {
        for (size, is_valid) in [("0", false), ("1", false), ("65535", false), ("64KiB", true), ("1GiB", true)] {
            let problems = settings(&["--download-part-size", size]).err().unwrap_or_default();
            let told = problems.iter().any(|problem| problem.contains("must be at least 64.0 KiB"));
            assert_eq!((told, problems.is_empty()), (!is_valid, is_valid), "{size}: {problems:?}");
        }
    }

    #[test]
    fn parts_leave_a_connection() {
        let problems = settings(&["--download-parts", "8", "--store-connections", "8"]).expect_err("none is left");
        assert!(problems[0].contains("must be more than --download-parts (8)"), "{problems:?}");
        for wrong in ["--download-part-size", "--download-bandwidth", "--store-attempts", "--download-concurrency"] {
            let problems = settings(&[wrong, "0"]).expect_err(wrong);
            assert!(problems.len() == 1 && problems[0].contains(wrong), "{problems:?}");
        }
    }
}

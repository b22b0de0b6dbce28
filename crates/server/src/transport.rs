//! Options about how ports are spoken to: TLS, and for gRPC keep-alive and compression, under Triton's names; and their checks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};
use frontend::{GrpcCompression, KeepAlive, Tls, TlsFiles};

/// How much answers over gRPC are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionLevel {
    None,
    Low,
    Medium,
    High,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "TLS and gRPC")]
pub(crate) struct TransportArgs {
    /// The certificate of the HTTP port and those between it and a root, in PEM; the port speaks TLS alone then
    #[arg(long, env = "PANOPLY_HTTP_SERVER_CERT", value_name = "FILE")]
    http_server_cert: Option<PathBuf>,
    /// The private key that goes with it, in PEM
    #[arg(long, env = "PANOPLY_HTTP_SERVER_KEY", value_name = "FILE")]
    http_server_key: Option<PathBuf>,
    /// Roots of clients' certificates, in PEM; the HTTP port refuses clients without one then
    #[arg(long, env = "PANOPLY_HTTP_ROOT_CERT", value_name = "FILE")]
    http_root_cert: Option<PathBuf>,
    /// The gRPC port speaks TLS alone
    #[arg(long, env = "PANOPLY_GRPC_USE_SSL", value_name = "BOOL", num_args = 0..=1, action = ArgAction::Set,
          default_value = "false", default_missing_value = "true", value_parser = BoolishValueParser::new())]
    grpc_use_ssl: bool,
    /// The gRPC port speaks TLS alone, and refuses clients without a certificate
    #[arg(long, env = "PANOPLY_GRPC_USE_SSL_MUTUAL", value_name = "BOOL", num_args = 0..=1, action = ArgAction::Set,
          default_value = "false", default_missing_value = "true", value_parser = BoolishValueParser::new())]
    grpc_use_ssl_mutual: bool,
    /// The certificate of the gRPC port and those between it and a root, in PEM
    #[arg(long, env = "PANOPLY_GRPC_SERVER_CERT", value_name = "FILE")]
    grpc_server_cert: Option<PathBuf>,
    /// The private key that goes with it, in PEM
    #[arg(long, env = "PANOPLY_GRPC_SERVER_KEY", value_name = "FILE")]
    grpc_server_key: Option<PathBuf>,
    /// Roots of clients' certificates, in PEM, for --grpc-use-ssl-mutual
    #[arg(long, env = "PANOPLY_GRPC_ROOT_CERT", value_name = "FILE")]
    grpc_root_cert: Option<PathBuf>,
    /// When answers over gRPC are compressed: never, or whenever the client can read it [default: when the request was]
    #[arg(long, env = "PANOPLY_GRPC_INFER_RESPONSE_COMPRESSION_LEVEL", value_name = "LEVEL")]
    grpc_infer_response_compression_level: Option<CompressionLevel>,
    /// After how long without a sign a gRPC client is asked for one, in milliseconds or as `30s` [default: the idle timeout]
    #[arg(long, env = "PANOPLY_GRPC_KEEPALIVE_TIME", value_name = "MS", value_parser = milliseconds)]
    grpc_keepalive_time: Option<Duration>,
    /// How long it may take to give one before its connection is closed
    #[arg(long, env = "PANOPLY_GRPC_KEEPALIVE_TIMEOUT", value_name = "MS", value_parser = milliseconds,
          default_value = "20000")]
    grpc_keepalive_timeout: Duration,
    /// Accepted as Triton has it; only true can be had: clients without calls are asked too
    #[arg(long, env = "PANOPLY_GRPC_KEEPALIVE_PERMIT_WITHOUT_CALLS", value_name = "BOOL", num_args = 0..=1,
          action = ArgAction::Set, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    grpc_keepalive_permit_without_calls: Option<bool>,
    /// Accepted as Triton has it; only 0 can be had: asking again and again is not limited
    #[arg(long, env = "PANOPLY_GRPC_HTTP2_MAX_PINGS_WITHOUT_DATA", value_name = "N")]
    grpc_http2_max_pings_without_data: Option<u64>,
    /// Accepted as Triton has it; only 0 can be had: clients may ask as often as they like
    #[arg(long, env = "PANOPLY_GRPC_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA", value_name = "MS",
          value_parser = milliseconds)]
    grpc_http2_min_recv_ping_interval_without_data: Option<Duration>,
    /// Accepted as Triton has it; only 0 can be had: no client is cut off for asking too often
    #[arg(long, env = "PANOPLY_GRPC_HTTP2_MAX_PING_STRIKES", value_name = "N")]
    grpc_http2_max_ping_strikes: Option<u64>,
    /// After how long a gRPC connection is told to end, give or take a tenth [default: never]
    #[arg(long, env = "PANOPLY_GRPC_MAX_CONNECTION_AGE", value_name = "MS", value_parser = milliseconds)]
    grpc_max_connection_age: Option<Duration>,
    /// How long its calls may take to finish then [default: as long as they want]
    #[arg(long, env = "PANOPLY_GRPC_MAX_CONNECTION_AGE_GRACE", value_name = "MS", value_parser = milliseconds)]
    grpc_max_connection_age_grace: Option<Duration>,
}

/// What [`TransportArgs`] come to.
#[derive(Clone, Debug)]
pub(crate) struct TransportSettings {
    pub(crate) http_tls: Option<Arc<Tls>>,
    pub(crate) grpc_tls: Option<Arc<Tls>>,
    pub(crate) grpc_keep_alive: KeepAlive,
    pub(crate) grpc_compression: GrpcCompression,
    /// What was asked for and cannot be had, one line each.
    pub(crate) unheeded: Vec<String>,
}

/// A time as Triton writes it, in milliseconds, or as our other options have it.
fn milliseconds(text: &str) -> Result<Duration, String> {
    let time = match text.parse::<u64>() {
        Ok(milliseconds) => Duration::from_millis(milliseconds),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    let longest = Duration::from_secs(365 * 24 * 3600);
    if time.is_zero() || time > longest {
        return Err("it must be more than 0 and at most one year".to_owned());
    }
    Ok(time)
}

impl TransportArgs {
    /// Checks the options and reads the files they name; every problem is added to `problems`.
    pub(crate) fn check(self, problems: &mut Vec<String>) -> TransportSettings {
        TransportSettings {
            unheeded: self.unheeded(),
            grpc_keep_alive: KeepAlive {
                interval: self.grpc_keepalive_time,
                timeout: self.grpc_keepalive_timeout,
                max_age: self.grpc_max_connection_age,
                max_age_grace: self.grpc_max_connection_age_grace,
            },
            grpc_compression: match self.grpc_infer_response_compression_level {
                None => GrpcCompression::AsRequest,
                Some(CompressionLevel::None) => GrpcCompression::Never,
                Some(CompressionLevel::Low) => GrpcCompression::Level(1),
                Some(CompressionLevel::Medium) => GrpcCompression::Level(6),
                Some(CompressionLevel::High) => GrpcCompression::Level(9),
            },
            http_tls: self.http_tls(problems),
            grpc_tls: self.grpc_tls(problems),
        }
    }

    /// What hyper does its own way.
    fn unheeded(&self) -> Vec<String> {
        let asked = |option: &str, asked: bool, what: &str| {
            asked.then(|| format!("--{option} is not heeded: {what}, whatever it says"))
        };
        let is_set = |number: Option<u64>| number.is_some_and(|number| number > 0);
        [
            asked(
                "grpc-keepalive-permit-without-calls",
                self.grpc_keepalive_permit_without_calls == Some(false),
                "clients without calls are asked for a sign too",
            ),
            asked(
                "grpc-http2-max-pings-without-data",
                is_set(self.grpc_http2_max_pings_without_data),
                "clients are asked for a sign again and again",
            ),
            asked(
                "grpc-http2-min-recv-ping-interval-without-data",
                self.grpc_http2_min_recv_ping_interval_without_data.is_some(),
                "clients may ask for a sign as often as they like",
            ),
            asked(
                "grpc-http2-max-ping-strikes",
                is_set(self.grpc_http2_max_ping_strikes),
                "no client is cut off for asking for a sign too often",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn http_tls(&self, problems: &mut Vec<String>) -> Option<Arc<Tls>> {
        let (certificate, key) = (self.http_server_cert.clone(), self.http_server_key.clone());
        let client_roots = self.http_root_cert.clone();
        match (certificate, key) {
            (Some(certificate), Some(key)) => load("--http-*", TlsFiles { certificate, key, client_roots }, problems),
            (None, None) if client_roots.is_none() => None,
            _ => {
                problems.push("TLS of the HTTP port needs --http-server-cert and --http-server-key".to_owned());
                None
            }
        }
    }

    fn grpc_tls(&self, problems: &mut Vec<String>) -> Option<Arc<Tls>> {
        let files = [&self.grpc_server_cert, &self.grpc_server_key, &self.grpc_root_cert];
        if !self.grpc_use_ssl && !self.grpc_use_ssl_mutual {
            if files.into_iter().any(Option::is_some) {
                let text = "--grpc-server-cert, --grpc-server-key and --grpc-root-cert need --grpc-use-ssl or \
                            --grpc-use-ssl-mutual; without it the port would not speak TLS";
                problems.push(text.to_owned());
            }
            return None;
        }
        if self.grpc_use_ssl_mutual && self.grpc_root_cert.is_none() {
            problems
                .push("--grpc-use-ssl-mutual needs --grpc-root-cert, the roots of clients' certificates".to_owned());
        }
        let (Some(certificate), Some(key)) = (self.grpc_server_cert.clone(), self.grpc_server_key.clone()) else {
            problems.push("TLS of the gRPC port needs --grpc-server-cert and --grpc-server-key".to_owned());
            return None;
        };
        // As in Triton, roots alone do not ask clients for a certificate.
        let client_roots = self.grpc_root_cert.clone().filter(|_| self.grpc_use_ssl_mutual);
        load("--grpc-*", TlsFiles { certificate, key, client_roots }, problems)
    }
}

fn load(options: &str, files: TlsFiles, problems: &mut Vec<String>) -> Option<Arc<Tls>> {
    match Tls::load(files) {
        Ok(tls) => Some(Arc::new(tls)),
        Err(found) => {
            problems.extend(found.into_iter().map(|problem| format!("TLS ({options}): {problem}")));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TransportArgs,
    }

    fn check(line: &str) -> Result<TransportSettings, Vec<String>> {
        let words = std::iter::once("panoply").chain(line.split_whitespace());
        let mut problems = Vec::new();
        let settings = Line::try_parse_from(words).expect("parses").args.check(&mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    #[test]
    fn times_are_tritons_or_ours() {
        let line = "--grpc-keepalive-time 5000 --grpc-max-connection-age 1h --grpc-max-connection-age-grace 250";
        let keep_alive = check(line).expect("valid").grpc_keep_alive;
        assert_eq!((keep_alive.interval, keep_alive.timeout), (Some(Duration::from_secs(5)), Duration::from_secs(20)));
        assert_eq!(keep_alive.max_age, Some(Duration::from_secs(3600)));
        assert_eq!(keep_alive.max_age_grace, Some(Duration::from_millis(250)));
        assert!(milliseconds("0").is_err() && milliseconds("soon").is_err());
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        let line = "--grpc-keepalive-permit-without-calls=0 --grpc-http2-max-pings-without-data 2 \
                    --grpc-http2-min-recv-ping-interval-without-data 300000 --grpc-http2-max-ping-strikes 2";
        assert_eq!(check(line).expect("valid").unheeded.len(), 4);
        let line = "--grpc-keepalive-permit-without-calls 1 --grpc-http2-max-ping-strikes 0";
        assert_eq!(check(line).expect("valid").unheeded, Vec::<String>::new());
        let low = check("--grpc-infer-response-compression-level low").expect("valid").grpc_compression;
        assert_eq!(low, GrpcCompression::Level(1));
    }

    #[test]
    fn tls_that_cannot_be_is_refused_with_everything_that_is_wrong() {
        let cases: [(&str, &[&str]); 6] = [
            ("--grpc-use-ssl", &["--grpc-server-cert and --grpc-server-key"]),
            ("--grpc-server-cert a.pem", &["need --grpc-use-ssl"]),
            ("--grpc-use-ssl-mutual true", &["--grpc-root-cert", "--grpc-server-cert and"]),
            ("--grpc-use-ssl=1 --grpc-server-cert /no/a.pem --grpc-server-key /no/b.pem", &["/no/a.pem", "/no/b.pem"]),
            ("--http-server-cert a.pem", &["--http-server-cert and --http-server-key"]),
            ("--http-root-cert a.pem", &["--http-server-cert and --http-server-key"]),
        ];
        for (line, expected) in cases {
            let problems = check(line).expect_err(line);
            assert_eq!(problems.len(), expected.len(), "{problems:?}");
            for part in expected {
                assert!(problems.iter().any(|problem| problem.contains(part)), "'{part}' is not in {problems:?}");
            }
        }
        assert!(check("--grpc-use-ssl false").expect("valid").grpc_tls.is_none());
    }
}

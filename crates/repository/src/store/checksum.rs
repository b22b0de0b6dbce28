//! Whole-object checksums as S3 keeps them, and hashers to verify them with while the bytes stream by.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;

/// The checksum algorithms that S3 offers for whole objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChecksumAlgorithm {
    /// CRC-32 as in gzip.
    Crc32,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// CRC-64/NVME, what S3 adds by itself today.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl ChecksumAlgorithm {
    /// The length of its value in bytes.
    fn length(self) -> usize {
        match self {
            ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => 4,
            ChecksumAlgorithm::Crc64Nvme => 8,
            ChecksumAlgorithm::Sha1 => 20,
            ChecksumAlgorithm::Sha256 => 32,
        }
    }

    /// S3's name for it.
    fn name(self) -> &'static str {
        match self {
            ChecksumAlgorithm::Crc32 => "CRC32",
            ChecksumAlgorithm::Crc32c => "CRC32C",
            ChecksumAlgorithm::Crc64Nvme => "CRC64NVME",
            ChecksumAlgorithm::Sha1 => "SHA1",
            ChecksumAlgorithm::Sha256 => "SHA256",
        }
    }
}

/// A checksum of a whole object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    algorithm: ChecksumAlgorithm,
    value: Vec<u8>,
}

impl Checksum {
    /// A checksum from a header's value (base64 of the big-endian bytes). `None` for what is no checksum of the whole
    /// object: those of multipart uploads are checksums of checksums, written with a `-` and the number of parts.
    pub fn from_header(algorithm: ChecksumAlgorithm, value: &str) -> Option<Self> {
        let value = STANDARD.decode(value).ok()?;
        (value.len() == algorithm.length()).then_some(Checksum { algorithm, value })
    }

    /// What computes a checksum to compare with this one.
    pub fn hasher(&self) -> ChecksumHasher {
        ChecksumHasher::new(self.algorithm)
    }
}

/// As S3's headers show it, with the algorithm in front.
impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm.name(), STANDARD.encode(&self.value))
    }
}

/// Computes a checksum piece by piece.
pub struct ChecksumHasher {
    algorithm: ChecksumAlgorithm,
    state: State,
}

enum State {
    Crc(Box<crc_fast::Digest>),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
}

impl ChecksumHasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        let crc = |algorithm| State::Crc(Box::new(crc_fast::Digest::new(algorithm)));
        let state = match algorithm {
            ChecksumAlgorithm::Crc32 => crc(CrcAlgorithm::Crc32IsoHdlc),
            ChecksumAlgorithm::Crc32c => crc(CrcAlgorithm::Crc32Iscsi),
            ChecksumAlgorithm::Crc64Nvme => crc(CrcAlgorithm::Crc64Nvme),
            ChecksumAlgorithm::Sha1 => State::Sha1(sha1::Sha1::default()),
            ChecksumAlgorithm::Sha256 => State::Sha256(sha2::Sha256::default()),
        };
        ChecksumHasher { algorithm, state }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Crc(digest) => digest.update(bytes),
            State::Sha1(digest) => sha1::Digest::update(digest, bytes),
            State::Sha256(digest) => sha2::Digest::update(digest, bytes),
        }
    }

    /// The checksum of everything added.
    pub fn finish(self) -> Checksum {
        let value = match self.state {
            State::Crc(digest) => {
                let value = digest.finalize().to_be_bytes();
                value[value.len() - self.algorithm.length()..].to_vec()
            }
            State::Sha1(digest) => sha1::Digest::finalize(digest).to_vec(),
            State::Sha256(digest) => sha2::Digest::finalize(digest).to_vec(),
        };
        Checksum { algorithm: self.algorithm, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check values of each algorithm's specification, for "123456789".
    #[test]
    fn known_values() {
        let cases = [
            (ChecksumAlgorithm::Crc32, "cbf43926"),
            (ChecksumAlgorithm::Crc32c, "e3069283"),
            (ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888"),
            (ChecksumAlgorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (ChecksumAlgorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ];
        for (algorithm, expected) in cases {
            let mut hasher = ChecksumHasher::new(algorithm);
            hasher.update(b"1234");
            hasher.update(b"56789");
            let got = hasher.finish();
            assert_eq!(hex::encode(&got.value), expected, "{algorithm:?}");
            let header = STANDARD.encode(&got.value);
            assert_eq!(Checksum::from_header(algorithm, &header).as_ref(), Some(&got));
            assert_eq!(Checksum::from_header(algorithm, &format!("{header}-2")), None, "a composite checksum");
        }
    }
}

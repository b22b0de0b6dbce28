//! The bounds of what an archive may unpack to.

/// What an archive may unpack to; past any of these it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Files, directories and links together.
    pub max_files: u64,
    /// Bytes of the unpacked tar, which are a little more than those of its files.
    pub max_unpacked_bytes: u64,
    /// Bytes of an entry's path or of a link's target.
    pub max_path_length: usize,
    /// How many times larger than the archive its content may be. Gzip cannot do better than about 1000; model weights
    /// rarely exceed 10. Not applied to the first 64 MiB.
    pub max_expansion_ratio: u64,
}

impl UnpackLimits {
    /// Content up to this many bytes may have any expansion ratio: small files of zeros are common and harmless.
    pub(crate) const RATIO_FREE_BYTES: u64 = 64 << 20;
}

impl Default for UnpackLimits {
    /// 100,000 entries, 256 GiB, paths of 1024 bytes, and a ratio of 200.
    fn default() -> Self {
        UnpackLimits {
            max_files: 100_000,
            max_unpacked_bytes: 256 << 30,
            max_path_length: 1024,
            max_expansion_ratio: 200,
        }
    }
}

//! What the header's numbers mean once they were found to mean something.

/// Smallest `cluster_bits`. Section "Header": 512-byte clusters are the least.
pub(super) const CLUSTER_BITS_MIN: u32 = 9;
/// Largest `cluster_bits`: QEMU's limit of 2 MiB clusters, which section "Header" mentions.
const CLUSTER_BITS_MAX: u32 = 21;

/// The version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Version 2, `compat=0.10`.
    V2,
    /// Version 3, `compat=1.1`.
    V3,
}

/// log2 of the cluster size in bytes, 9 to 21.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterBits(u32);

impl ClusterBits {
    /// `bits`, if they are 9 to 21.
    pub fn new(bits: u32) -> Option<Self> {
        (CLUSTER_BITS_MIN..=CLUSTER_BITS_MAX).contains(&bits).then_some(Self(bits))
    }

    /// The number of bits.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Cluster size in bytes, 512 to 2 MiB.
    pub const fn size(self) -> u64 {
        1 << self.0
    }

    /// Whether a file offset or length is a multiple of the cluster size.
    pub const fn aligned(self, offset: u64) -> bool {
        offset & (self.size() - 1) == 0
    }
}

/// How the data is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CryptMethod {
    /// Not at all.
    None,
    /// AES-CBC with a key from a password, long deprecated.
    Aes,
    /// LUKS, its header found through a header extension.
    Luks,
}

impl CryptMethod {
    /// Its name as the option `encrypt.format` has it, if it is any.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Aes => Some("aes"),
            Self::Luks => Some("luks"),
        }
    }

    /// Whether it is any method but none.
    pub fn is_encrypted(self) -> bool {
        self != Self::None
    }
}

/// How compressed clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Raw deflate.
    Zlib,
    /// Zstandard.
    Zstd,
}

//! Compressed clusters: what a decoder must know before it starts.

use crate::FileIndex;

/// How a compressed cluster was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Raw deflate, without a header.
    Deflate,
    /// Deflate inside a zlib stream.
    Zlib,
    /// Zstandard.
    Zstd,
    /// bzip2.
    Bzip2,
    /// LZFSE.
    Lzfse,
}

/// The stream behind an [`ExtentKind::Compressed`](crate::ExtentKind::Compressed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The file it is in.
    pub file: FileIndex,
    /// File offset in bytes of its first byte.
    pub offset: u64,
    /// Bytes that it is long at most. A qcow image can say 0: that is not decoded.
    pub length: u64,
    /// What it is compressed with.
    pub codec: Codec,
    /// Most bytes that may ever be decoded: a cluster. At the end of a disk the stream may hold less.
    pub cluster_len: u64,
    /// Decoded bytes in front of the extent's first.
    pub skip: u64,
}

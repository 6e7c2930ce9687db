//! Compressed clusters: what a decoder must know before it starts.

use alloc::format;

use crate::{Error, ErrorKind, FileIndex};

/// The longest compressed stream that is read: qcow2 stores at most what 13 bits count in sectors of 512 bytes, VMDK at
/// most two grains of a mebibyte.
const MAX_STREAM: u64 = 4 << 20;

/// The longest cluster or grain that is decoded: 2 MiB in qcow2, the same in VMDK.
const MAX_CLUSTER: u64 = 2 << 20;

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

impl Stream {
    /// Whether it is one that can be decoded: otherwise [unsupported](ErrorKind::Unsupported), or beyond a
    /// [limit](ErrorKind::Limit).
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |kind, message| Err(Error::new(kind, "compressed cluster", message).in_file(self.file));
        if matches!(self.codec, Codec::Bzip2 | Codec::Lzfse) {
            return refuse(ErrorKind::Unsupported, "Decoding bzip2 and LZFSE is not supported".into());
        }
        if self.length > MAX_STREAM || self.cluster_len > MAX_CLUSTER {
            let message = format!(
                "A compressed cluster of {} bytes in {} is longer than any that is decoded",
                self.cluster_len, self.length
            );
            return refuse(ErrorKind::Limit, message);
        }
        Ok(())
    }
}

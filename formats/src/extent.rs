//! The one mapping interface: virtual ranges of a disk and where their bytes come from.

/// A run of virtual bytes that all come from the same kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First virtual byte of the run.
    pub start: u64,
    /// Length of the run in bytes, at least 1.
    pub length: u64,
    /// Where the bytes are.
    pub kind: ExtentKind,
}

/// Where the bytes of an [`Extent`] come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Not in this image: the backing file decides, and without one the bytes are zero.
    Unallocated,
    /// Reads as zeros, whatever lies below. `offset` is the space set aside in the file, if any.
    Zero {
        /// File offset in bytes of preallocated space.
        offset: Option<u64>,
    },
    /// Stored as they are at this offset of the file, contiguous for the whole run.
    Data {
        /// File offset in bytes of the first byte of the run.
        offset: u64,
    },
    /// Stored compressed; one cluster of the virtual disk.
    Compressed {
        /// File offset in bytes of the compressed stream.
        offset: u64,
        /// Upper bound of the stream's length in bytes.
        length: u64,
    },
}

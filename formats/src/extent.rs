//! The one mapping interface: virtual ranges of a disk and where their bytes come from.

/// A file that an image lies in: its own, or one of those that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIndex(u32);

impl FileIndex {
    /// The image's own file.
    pub const OWN: Self = Self(0);

    /// The external data file of an image that has one ([`Image::data_file`](crate::Image::data_file)). Such an image
    /// has no references beside it.
    pub const DATA_FILE: Self = Self(1);

    /// The file behind the reference at this position of [`Image::references`](crate::Image::references).
    pub fn of_reference(position: usize) -> Option<Self> {
        Some(Self(u32::try_from(position).ok()?.checked_add(1)?))
    }

    /// Position in [`Image::references`](crate::Image::references), unless it is the image's own file.
    pub fn reference(self) -> Option<usize> {
        self.0.checked_sub(1).and_then(|position| usize::try_from(position).ok())
    }
}

/// A run of virtual bytes that all come from the same kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First virtual byte of the run.
    pub start: u64,
    /// Length of the run in bytes, at least 1.
    pub length: u64,
    /// Where the bytes are.
    pub kind: ExtentKind,
    /// The file that offsets in `kind` are offsets of; the image's own if there are none.
    pub file: FileIndex,
}

/// Where the bytes of an [`Extent`] come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Not in this image: the backing file decides, and without one the bytes are zero.
    Unallocated {
        /// File offset in bytes of the space that is set aside for the run: other parts of its cluster were written.
        offset: Option<u64>,
    },
    /// Reads as zeros, whatever lies below.
    Zero {
        /// File offset in bytes of the space that is set aside for the run; in a raw image that of the hole.
        offset: Option<u64>,
    },
    /// Stored as they are at this offset of the file, contiguous for the whole run.
    Data {
        /// File offset in bytes of the first byte of the run.
        offset: u64,
    },
    /// As data, but where it would be stored the file has a hole, or has ended: zeros.
    Hole {
        /// File offset in bytes of the first byte of the run.
        offset: u64,
    },
    /// Stored compressed: a part of one cluster of the virtual disk, the whole of which the stream holds.
    /// [`Image::stream`](crate::Image::stream) says how to decode it.
    Compressed {
        /// File offset in bytes of the compressed stream.
        offset: u64,
        /// Upper bound of the stream's length in bytes.
        length: u64,
    },
}

impl Extent {
    /// A run whose bytes are in the image's own file, if they are in any.
    pub const fn own(start: u64, length: u64, kind: ExtentKind) -> Self {
        Self { start, length, kind, file: FileIndex::OWN }
    }

    /// The part of the run from the virtual `offset` on, if the run holds it.
    pub fn part_from(&self, offset: u64) -> Option<Self> {
        let skip = offset.checked_sub(self.start).filter(|&skip| skip < self.length)?;
        let kind = match self.kind {
            ExtentKind::Zero { offset: Some(offset) } => {
                ExtentKind::Zero { offset: offset.checked_add(skip) }
            }
            ExtentKind::Unallocated { offset: Some(offset) } => {
                ExtentKind::Unallocated { offset: offset.checked_add(skip) }
            }
            ExtentKind::Data { offset } => ExtentKind::Data { offset: offset.checked_add(skip)? },
            ExtentKind::Hole { offset } => ExtentKind::Hole { offset: offset.checked_add(skip)? },
            other => other,
        };
        Some(Self { start: offset, length: self.length - skip, kind, file: self.file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_run_moves_with_its_offset() {
        let run = Extent::own;
        let data = run(100, 50, ExtentKind::Data { offset: 7000 });
        assert_eq!(data.part_from(100), Some(data));
        assert_eq!(data.part_from(149), Some(run(149, 1, ExtentKind::Data { offset: 7049 })));
        assert_eq!(data.part_from(99), None);
        assert_eq!(data.part_from(150), None);
        let zero = run(0, 9, ExtentKind::Zero { offset: Some(5) });
        assert_eq!(zero.part_from(4), Some(run(4, 5, ExtentKind::Zero { offset: Some(9) })));
        let reserved = run(0, 9, ExtentKind::Unallocated { offset: Some(5) });
        assert_eq!(reserved.part_from(4), Some(run(4, 5, ExtentKind::Unallocated { offset: Some(9) })));
        let hole = run(0, 9, ExtentKind::Hole { offset: 5 });
        assert_eq!(hole.part_from(4), Some(run(4, 5, ExtentKind::Hole { offset: 9 })));
        let compressed = run(0, 9, ExtentKind::Compressed { offset: 5, length: 6 });
        assert_eq!(compressed.part_from(4), Some(run(4, 5, compressed.kind)));
        let elsewhere = Extent { file: FileIndex::of_reference(2).unwrap(), ..data };
        assert_eq!(elsewhere.part_from(120).unwrap().file.reference(), Some(2));
    }
}

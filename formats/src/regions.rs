//! Holes of a file: which of its bytes read as zeros without being stored.

use crate::{Storage, StorageError};

/// Asks a [`Storage`] about its regions and remembers the last answer, so that neighbours do not ask again.
#[derive(Debug, Default)]
pub struct Regions {
    /// Start, end and kind of the last region.
    last: Option<(u64, u64, bool)>,
}

/// A run of bytes at a file offset, in the sense of [`Regions::at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Length in bytes, from 1 up to what was asked for.
    pub length: u64,
    /// Whether the bytes are a hole or lie past the end of the file; either way they read as zeros.
    pub zero: bool,
}

impl Regions {
    /// What the first of `length` bytes at `offset` is, and for how many of them. Past the end of the file all is
    /// zero, and a hole that reaches the end goes on beyond it. `length` is at least 1.
    pub fn at<S: Storage>(&mut self, storage: &mut S, offset: u64, length: u64) -> Result<Run, StorageError> {
        let file_end = storage.len();
        if offset >= file_end {
            return Ok(Run { length, zero: true });
        }
        let (end, hole) = match self.last {
            Some((start, end, hole)) if start <= offset && offset < end => (end, hole),
            _ => {
                let region = storage.region_at(offset)?;
                let end = offset.saturating_add(region.length).min(file_end);
                if end == offset {
                    return Err(StorageError);
                }
                self.last = Some((offset, end, region.hole));
                (end, region.hole)
            }
        };
        if hole && end == file_end {
            return Ok(Run { length, zero: true });
        }
        Ok(Run { length: length.min(end - offset), zero: hole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Region;

    /// 4 KiB of data, 4 KiB of hole, 4 KiB of data, 4 KiB of hole; counts the questions.
    struct Striped(u32);

    impl Storage for Striped {
        fn len(&self) -> u64 {
            0x4000
        }
        fn allocated(&self) -> u64 {
            0x2000
        }
        fn read_at(&mut self, _: u64, _: &mut [u8]) -> Result<(), StorageError> {
            Err(StorageError)
        }
        fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
            self.0 += 1;
            Ok(Region { length: 0x1000 - offset % 0x1000, hole: offset / 0x1000 % 2 == 1 })
        }
    }

    #[test]
    fn answers_are_cut_to_the_region_and_remembered() {
        let (mut storage, mut regions) = (Striped(0), Regions::default());
        let mut at = |offset, length| regions.at(&mut storage, offset, length).unwrap();
        assert_eq!(at(0x800, 0x10000), Run { length: 0x800, zero: false });
        assert_eq!(at(0xc00, 0x100), Run { length: 0x100, zero: false });
        assert_eq!(at(0x1000, 0x10000), Run { length: 0x1000, zero: true });
        assert_eq!(at(0x3000, 0x10000), Run { length: 0x10000, zero: true });
        assert_eq!(at(0x4000, 7), Run { length: 7, zero: true });
        assert_eq!(storage.0, 3);
    }
}

//! A table of a file, a part of it in memory at a time.

use alloc::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use crate::{FileIndex, Storage, StorageError};

/// The part of a file that was looked at last, as entries of a table. It is a block of fixed length at a multiple of
/// that length, so that tables that are neighbours are read together.
#[derive(Debug)]
pub(crate) struct Window<E> {
    /// Length in bytes: a multiple of an entry's, and a divisor of the offset of every table or a multiple of 512.
    length: usize,
    entries: Vec<E>,
    /// File and offset of the block, if one is in memory.
    at: Option<(FileIndex, u64)>,
}

impl<E: Copy + FromBytes + IntoBytes> Window<E> {
    /// A window of `length` bytes, a multiple of the length of an entry.
    pub(crate) fn new(length: usize) -> Self {
        Self { length: length.max(size_of::<E>()), entries: Vec::new(), at: None }
    }

    /// Of the `count` entries that start at `offset` of the file, those up to the end of the window: at least one if
    /// `count` is not 0. `storage` is that of `file`; `offset` is a multiple of the length of an entry.
    pub(crate) fn entries<S: Storage>(
        &mut self,
        storage: &mut S,
        file: FileIndex,
        offset: u64,
        count: u64,
    ) -> Result<&[E], StorageError> {
        let skip = offset % self.length as u64;
        let at = Some((file, offset - skip));
        if self.at != at {
            self.entries.resize(self.length / size_of::<E>(), E::new_zeroed());
            self.at = None;
            storage.read_at(offset - skip, self.entries.as_mut_bytes())?;
            self.at = at;
        }
        let skip = usize::try_from(skip).unwrap_or(usize::MAX) / size_of::<E>();
        let rest = self.entries.get(skip..).unwrap_or(&[]);
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(rest.len());
        Ok(rest.get(..count).unwrap_or(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::little_endian::U32;

    #[test]
    fn entries_end_with_the_window_and_files_are_told_apart() {
        let file: Vec<u8> = (0..64).collect();
        let (mut storage, other) = (&file[..], FileIndex::of_reference(0).unwrap());
        let mut window = Window::<U32>::new(16);
        let mut at = |storage: &mut &[u8], file, offset, count| {
            let entries = window.entries(storage, file, offset, count).unwrap();
            entries.iter().map(|entry| entry.get() & 0xff).collect::<Vec<_>>()
        };
        assert_eq!(at(&mut storage, FileIndex::OWN, 4, 9), [4, 8, 12]);
        assert_eq!(at(&mut storage, FileIndex::OWN, 4, 1), [4]);
        assert_eq!(at(&mut storage, FileIndex::OWN, 4, 0), [0; 0]);
        assert_eq!(at(&mut storage, FileIndex::OWN, 60, 9), [60]);
        assert_eq!(at(&mut storage, FileIndex::OWN, 64, 2), [0, 0]);
        assert_eq!(at(&mut &file[1..], other, 60, 1), [61]);
        assert_eq!(at(&mut storage, FileIndex::OWN, 60, 1), [60]);
    }
}

//! A table of numbers in a file, read through a window: bounded memory whatever the table's length.

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{Error, Storage};

/// Bytes of a table in memory at a time.
const WINDOW_LEN: u64 = 64 << 10;

/// A table of `count` entries of type `E` (a number of fixed byte order).
#[derive(Debug)]
pub(crate) struct Table<E> {
    /// File offset of the table in bytes.
    offset: u64,
    /// Number of entries.
    count: u64,
    window: Vec<E>,
    /// Index of the window's first entry.
    first: u64,
}

impl<E: Copy + FromBytes + IntoBytes + Immutable> Table<E> {
    /// Length of an entry in bytes.
    const ENTRY_LEN: u64 = size_of::<E>() as u64;
    /// Entries in memory at a time.
    const WINDOW: u64 = WINDOW_LEN / Self::ENTRY_LEN;

    pub(crate) fn new(offset: u64, count: u64) -> Self {
        Self { offset, count, window: Vec::new(), first: 0 }
    }

    /// Number of entries.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// File offset in bytes of the table's end.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.count.saturating_mul(Self::ENTRY_LEN))
    }

    /// The entries from `index` to the end of the window; at least one if `index` is in the table. Nothing is kept of
    /// a window that could not be read.
    pub(crate) fn from<S: Storage>(&mut self, storage: &mut S, index: u64) -> Result<&[E], Error> {
        let inside = index >= self.first && index - self.first < self.window.len() as u64;
        if !inside && index < self.count {
            let first = index - index % Self::WINDOW;
            let length = usize::try_from(Self::WINDOW.min(self.count - first)).unwrap_or(0);
            self.window.clear();
            self.window.resize(length, E::new_zeroed());
            self.first = first;
            let offset = self.offset.saturating_add(first * Self::ENTRY_LEN);
            let result = storage.read_at(offset, self.window.as_mut_bytes());
            if result.is_err() {
                self.window.clear();
            }
            result?;
        }
        let skip = index.checked_sub(self.first).and_then(|skip| usize::try_from(skip).ok());
        Ok(skip.and_then(|skip| self.window.get(skip..)).unwrap_or(&[]))
    }

    /// How many entries from `index` on lie in one hole of the file, and so are zero: they need not be read.
    pub(crate) fn in_hole<S: Storage>(&self, storage: &mut S, index: u64) -> Result<u64, Error> {
        let offset = self.offset.saturating_add(index.saturating_mul(Self::ENTRY_LEN));
        if index >= self.count || offset >= storage.len() {
            return Ok(self.count.saturating_sub(index));
        }
        let region = storage.region_at(offset)?;
        if !region.hole {
            return Ok(0);
        }
        Ok((region.length / Self::ENTRY_LEN).min(self.count - index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::big_endian::U32;

    #[test]
    fn a_table_is_read_window_by_window() {
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_be_bytes).collect();
        let mut storage = &bytes[..];
        let mut table = Table::<U32>::new(4, 99_999);
        for index in [0, 1, 16383, 16384, 99_998, 5] {
            assert_eq!(u64::from(table.from(&mut storage, index).unwrap()[0].get()), index + 1);
        }
        assert_eq!(table.from(&mut storage, 99_984).unwrap().len(), 15);
        assert!(table.from(&mut storage, 99_999).unwrap().is_empty());
        assert_eq!(table.in_hole(&mut storage, 5), Ok(0));
    }
}

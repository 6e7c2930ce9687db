//! A table of entries of one width that is changed: a window of it is in memory and is written when another takes its
//! place, so that neighbours are written together and memory is bounded whatever the table's length.

use alloc::vec::Vec;
use core::ops::Range;

use zerocopy::IntoBytes;

use crate::table::Entry;
use crate::{StorageError, StorageMut};

/// Most bytes of a table in memory at a time.
const WINDOW_LEN: u64 = 1 << 20;

/// A table in a file.
#[derive(Debug)]
pub(crate) struct TableMut<E> {
    /// File offset of the table in bytes.
    offset: u64,
    /// File offset of a second copy of the table, which is written and not read.
    copy: Option<u64>,
    /// Number of entries.
    entries: u64,
    window: Vec<E>,
    /// Index of the window's first entry.
    first: u64,
    /// Positions in the window from the first entry that was changed to the last.
    changed: Range<usize>,
}

impl<E: Entry> TableMut<E> {
    /// The table of `entries` at the file offset `offset`.
    pub(crate) fn new(offset: u64, entries: u64) -> Self {
        Self { offset, copy: None, entries, window: Vec::new(), first: 0, changed: 0..0 }
    }

    /// Goes to another table of as many entries, and its copy if it has one; what was changed in the last one is written.
    pub(crate) fn move_to<S: StorageMut>(
        &mut self,
        storage: &mut S,
        offset: u64,
        copy: Option<u64>,
    ) -> Result<(), StorageError> {
        if (offset, copy) != (self.offset, self.copy) {
            self.write_back(storage)?;
            (self.offset, self.copy) = (offset, copy);
            self.window.clear();
        }
        Ok(())
    }

    /// Number of entries.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    fn window_entries(&self) -> u64 {
        WINDOW_LEN / size_of::<E>() as u64
    }

    /// The entries from `index` to the end of the window; at least one if `index` is in the table.
    pub(crate) fn from<S: StorageMut>(&mut self, storage: &mut S, index: u64) -> Result<&[E], StorageError> {
        let position = self.load(storage, index)?;
        Ok(self.window.get(position..).unwrap_or(&[]))
    }

    /// The entry at `index`; one past the end of the table is none.
    pub(crate) fn get<S: StorageMut>(
        &mut self,
        storage: &mut S,
        index: u64,
    ) -> Result<Option<E>, StorageError> {
        Ok(self.from(storage, index)?.first().copied())
    }

    /// Makes the entry at `index` be `entry`.
    pub(crate) fn set<S: StorageMut>(
        &mut self,
        storage: &mut S,
        index: u64,
        entry: E,
    ) -> Result<(), StorageError> {
        let position = self.load(storage, index)?;
        *self.window.get_mut(position).ok_or(StorageError)? = entry;
        self.changed = if self.changed.is_empty() {
            position..position + 1
        } else {
            self.changed.start.min(position)..self.changed.end.max(position + 1)
        };
        Ok(())
    }

    /// Writes what was changed.
    pub(crate) fn write_back<S: StorageMut>(&mut self, storage: &mut S) -> Result<(), StorageError> {
        let start = self.first.saturating_add(self.changed.start as u64);
        let within = start.saturating_mul(size_of::<E>() as u64);
        let bytes = self.window.get(self.changed.clone()).unwrap_or(&[]).as_bytes();
        if !bytes.is_empty() {
            for table in [Some(self.offset), self.copy].into_iter().flatten() {
                storage.write_at(table.checked_add(within).ok_or(StorageError)?, bytes)?;
            }
        }
        self.changed = 0..0;
        Ok(())
    }

    /// Brings the part of the table with the entry at `index` into the window, and gives its position there.
    fn load<S: StorageMut>(&mut self, storage: &mut S, index: u64) -> Result<usize, StorageError> {
        let inside = index >= self.first && index - self.first < self.window.len() as u64;
        if !inside && index < self.entries {
            self.write_back(storage)?;
            let first = index - index % self.window_entries();
            let length = usize::try_from(self.window_entries().min(self.entries - first)).unwrap_or(0);
            self.window.clear();
            let offset =
                first.checked_mul(size_of::<E>() as u64).and_then(|skip| self.offset.checked_add(skip));
            let mut window = alloc::vec![E::new_zeroed(); length];
            storage.read_at(offset.ok_or(StorageError)?, window.as_mut_slice().as_mut_bytes())?;
            (self.window, self.first) = (window, first);
        }
        let position = index.checked_sub(self.first).and_then(|skip| usize::try_from(skip).ok());
        Ok(position.unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::little_endian::U32;

    #[test]
    fn windows_are_written_when_they_are_left() {
        let entries = 2 * WINDOW_LEN / 4 + 1;
        let (mut storage, copy) = (Vec::<u8>::new(), 4 + entries * 4);
        let mut table = TableMut::<U32>::new(0, entries);
        table.move_to(&mut storage, 4, Some(copy)).unwrap();
        table.set(&mut storage, 1, U32::new(7)).unwrap();
        table.set(&mut storage, 0, U32::new(8)).unwrap();
        assert!(storage.is_empty());
        table.set(&mut storage, entries - 1, U32::new(9)).unwrap();
        assert_eq!(storage[..12], [0, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(table.get(&mut storage, 1).unwrap().map(U32::get), Some(7));
        assert_eq!(table.get(&mut storage, entries).unwrap(), None);
        assert!(table.set(&mut storage, entries, U32::new(1)).is_err());
        table.write_back(&mut storage).unwrap();
        let at = |offset: u64| storage[usize::try_from(offset).unwrap()];
        assert_eq!((at(copy), at(copy + 4), at(copy + entries * 4 - 4)), (8, 7, 9));
    }
}

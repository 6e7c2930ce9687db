//! A table of entries of one width, read through a window: memory is bounded whatever the table's length.

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes, big_endian, little_endian};

use crate::{Storage, StorageError};

/// An entry of a table: a number in the byte order of its format.
pub(crate) trait Entry: FromBytes + IntoBytes + Immutable + Copy {
    /// The number.
    fn value(self) -> u64;
}

impl Entry for big_endian::U64 {
    fn value(self) -> u64 {
        self.get()
    }
}

impl Entry for little_endian::U64 {
    fn value(self) -> u64 {
        self.get()
    }
}

impl Entry for big_endian::U32 {
    fn value(self) -> u64 {
        self.get().into()
    }
}

impl Entry for little_endian::U32 {
    fn value(self) -> u64 {
        self.get().into()
    }
}

/// A table in a file.
#[derive(Debug)]
pub(crate) struct Table<E> {
    /// File offset of the table in bytes.
    offset: u64,
    /// Number of entries.
    entries: u64,
    /// Entries of a window, at least 1.
    window_entries: u64,
    window: Vec<E>,
    /// Index of the window's first entry.
    first: u64,
}

impl<E: Entry> Table<E> {
    /// A table of `entries` at the file offset `offset`, of which `window` entries are in memory at a time.
    pub(crate) fn new(offset: u64, entries: u64, window: u64) -> Self {
        Self { offset, entries, window_entries: window.max(1), window: Vec::new(), first: 0 }
    }

    /// Number of entries.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// File offset of the table's end; an end above 2^64 is as good as 2^64 - 1.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.entries.saturating_mul(size_of::<E>() as u64))
    }

    /// Goes to another table of as many entries.
    pub(crate) fn move_to(&mut self, offset: u64) {
        if offset != self.offset {
            self.offset = offset;
            self.window.clear();
        }
    }

    /// The entries from `index` to the end of the window; at least one if `index` is in the table.
    pub(crate) fn from<S: Storage>(&mut self, storage: &mut S, index: u64) -> Result<&[E], StorageError> {
        let inside = index >= self.first && index - self.first < self.window.len() as u64;
        if !inside && index < self.entries {
            let first = index - index % self.window_entries;
            let length = usize::try_from(self.window_entries.min(self.entries - first)).unwrap_or(0);
            self.window.clear();
            self.window.resize(length, E::new_zeroed());
            self.first = first;
            let offset = self.offset.saturating_add(first.saturating_mul(size_of::<E>() as u64));
            if let Err(error) = storage.read_at(offset, self.window.as_mut_slice().as_mut_bytes()) {
                self.window.clear();
                return Err(error);
            }
        }
        let skip = index.checked_sub(self.first).and_then(|skip| usize::try_from(skip).ok());
        Ok(skip.and_then(|skip| self.window.get(skip..)).unwrap_or(&[]))
    }

    /// Index of the first entry at or after `index` that `accept` takes, or the number of entries.
    pub(crate) fn find<S: Storage>(
        &mut self,
        storage: &mut S,
        mut index: u64,
        accept: impl Fn(u64) -> bool,
    ) -> Result<u64, StorageError> {
        while index < self.entries {
            let in_hole = if accept(0) { 0 } else { self.in_hole(storage, index)? };
            if in_hole > 0 {
                index += in_hole;
                continue;
            }
            let entries = self.from(storage, index)?;
            match entries.iter().position(|entry| accept(entry.value())) {
                Some(position) => return Ok(index + position as u64),
                None => index += entries.len() as u64,
            }
        }
        Ok(self.entries)
    }

    /// How many entries from `index` on lie in one hole of the file, and so are zero: they need not be read.
    pub(crate) fn in_hole<S: Storage>(&self, storage: &mut S, index: u64) -> Result<u64, StorageError> {
        let entry_len = size_of::<E>() as u64;
        let offset = self.offset.saturating_add(index.saturating_mul(entry_len));
        if index >= self.entries || offset >= storage.len() {
            return Ok(self.entries.saturating_sub(index));
        }
        let region = storage.region_at(offset)?;
        if !region.hole {
            return Ok(0);
        }
        Ok((region.length / entry_len).min(self.entries - index))
    }

    /// Whether `accept` takes more than `bound` entries; the table is read no further than it takes to know that.
    pub(crate) fn has_more_than<S: Storage>(
        &mut self,
        storage: &mut S,
        bound: u64,
        accept: impl Fn(u64) -> bool,
    ) -> Result<bool, StorageError> {
        if self.entries <= bound {
            return Ok(false);
        }
        let (mut index, mut count) = (0, 0);
        while index < self.entries {
            let in_hole = self.in_hole(storage, index)?;
            if in_hole > 0 {
                index += in_hole;
                count += if accept(0) { in_hole } else { 0 };
            } else {
                let entries = self.from(storage, index)?;
                count += entries.iter().filter(|entry| accept(entry.value())).count() as u64;
                index += entries.len() as u64;
            }
            if count > bound {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use little_endian::U32;

    #[test]
    fn windows_are_aligned_and_the_last_is_short() {
        let bytes: Vec<u8> = (0..10u32).flat_map(u32::to_le_bytes).collect();
        let mut storage = &bytes[..];
        let mut table = Table::<U32>::new(4, 9, 4);
        assert_eq!(table.end(), 40);
        assert_eq!(table.in_hole(&mut storage, 5), Ok(0));
        let values = |entries: &[U32]| entries.iter().map(|entry| entry.get()).collect::<Vec<_>>();
        assert_eq!(values(table.from(&mut storage, 1).unwrap()), [2, 3, 4]);
        assert_eq!(values(table.from(&mut storage, 4).unwrap()), [5, 6, 7, 8]);
        assert_eq!(values(table.from(&mut storage, 8).unwrap()), [9]);
        assert_eq!(values(table.from(&mut storage, 9).unwrap()), []);
        table.move_to(0);
        assert_eq!(values(table.from(&mut storage, 8).unwrap()), [8]);
        assert_eq!(table.find(&mut storage, 1, |value| value >= 6).unwrap(), 6);
        assert_eq!(table.find(&mut storage, 1, |value| value >= 9).unwrap(), 9);
        assert!(table.has_more_than(&mut storage, 2, |value| value >= 6).unwrap());
        assert!(!table.has_more_than(&mut storage, 3, |value| value >= 6).unwrap());
    }
}

//! What bounds a walk through tables where a file is long and has little in it.

use crate::{Region, Storage, StorageError};

/// Bytes of tables that are looked through before anyone asks how much the file stores: a walk that is short anyway.
const UNASKED: u64 = 8 << 20;

/// Counts the stored bytes of the tables that a walk looks through. No two entries share a table, so these are never
/// more than the file stores; holes are not looked through at all.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Number of the last table that was counted.
    last: Option<u64>,
    /// Stored bytes of the tables up to it.
    looked_at: u64,
    /// Bytes that the file stores, once it was asked.
    stored: Option<u64>,
}

/// What is to be done with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is to be read.
    Read,
    /// It is a hole: all its entries are zero.
    Hole,
    /// There are more tables than the file stores: some are shared.
    TooMany,
}

impl Scan {
    /// Looks at the table number `index`, which is `length` bytes at the file offset `offset`, inside the file. A walk
    /// comes by its tables in order; when it goes back, the count begins anew.
    pub(crate) fn table<S: Storage>(
        &mut self,
        storage: &mut S,
        index: u64,
        offset: u64,
        length: u64,
    ) -> Result<Verdict, StorageError> {
        let stored = stored_between(storage, offset, offset.saturating_add(length))?;
        if stored == 0 {
            return Ok(Verdict::Hole);
        }
        if self.last.is_some_and(|last| index <= last) {
            self.looked_at = 0;
        }
        self.last = Some(index);
        self.looked_at = self.looked_at.saturating_add(stored);
        if self.looked_at <= UNASKED {
            return Ok(Verdict::Read);
        }
        let all = match self.stored {
            Some(all) => all,
            None => stored_between(storage, 0, storage.len())?,
        };
        self.stored = Some(all);
        Ok(if self.looked_at <= all { Verdict::Read } else { Verdict::TooMany })
    }
}

/// Bytes from `start` to `end` that are no holes; what lies past the end of the file is none.
fn stored_between<S: Storage>(storage: &mut S, start: u64, end: u64) -> Result<u64, StorageError> {
    let (mut offset, mut stored, end) = (start, 0, end.min(storage.len()));
    while offset < end {
        let Region { length, hole } = storage.region_at(offset)?;
        let next = offset.saturating_add(length.max(1)).min(end);
        if !hole {
            stored += next - offset;
        }
        offset = next;
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long file that stores its first 16 MiB and its last byte.
    struct Long;

    impl Storage for Long {
        fn len(&self) -> u64 {
            1 << 40
        }

        fn allocated(&self) -> u64 {
            0
        }

        fn read_at(&mut self, _: u64, _: &mut [u8]) -> Result<(), StorageError> {
            Err(StorageError)
        }

        fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
            let ends = [(16 << 20, false), ((1 << 40) - 1, true), (1 << 40, false)];
            let (end, hole) = ends.into_iter().find(|(end, _)| offset < *end).ok_or(StorageError)?;
            Ok(Region { length: end - offset, hole })
        }
    }

    #[test]
    fn tables_are_counted_by_what_is_stored_of_them() {
        let mut scan = Scan::default();
        let mut table = |index, offset, length| scan.table(&mut Long, index, offset, length).unwrap();
        assert_eq!(table(0, 0, 16 << 20), Verdict::Read);
        assert_eq!(table(1, 16 << 20, 1 << 30), Verdict::Hole);
        assert_eq!(table(2, (1 << 40) - 512, 512), Verdict::Read);
        assert_eq!(table(3, 0, 1), Verdict::TooMany);
        // A walk from the start again.
        assert_eq!(table(0, 0, 16 << 20), Verdict::Read);
        assert_eq!(table(0, 0, 16 << 20), Verdict::Read);
        assert_eq!(table(1, 0, 2), Verdict::TooMany);
    }
}

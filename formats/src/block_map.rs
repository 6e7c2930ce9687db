//! One table that says of each block of the disk where it is.

use crate::run::{Place, run};
use crate::table::{Entry, Table};
use crate::{Error, ErrorKind, Extent, Storage, StorageError};

/// Bytes of the table in memory at a time.
const WINDOW_LEN: u64 = 64 << 10;

/// The walk over the table: of what lies beyond it nothing is allocated.
#[derive(Debug)]
pub(crate) struct BlockMap<E> {
    table: Table<E>,
    block_len: u64,
    disk_len: u64,
    /// The last run found. Whoever follows several images at once asks for it piece by piece.
    last: Option<Extent>,
}

impl<E: Entry> BlockMap<E> {
    /// The map at the file offset `offset` for a disk of `disk_len` bytes in blocks of `block_len` bytes, of which no
    /// more than `entries` have an entry.
    pub(crate) fn new(offset: u64, entries: u64, block_len: u64, disk_len: u64) -> Self {
        let used = disk_len.div_ceil(block_len).min(entries);
        let table = Table::new(offset, used, WINDOW_LEN / size_of::<E>() as u64);
        Self { table, block_len, disk_len, last: None }
    }

    /// Length of a block in bytes.
    pub(crate) fn block_len(&self) -> u64 {
        self.block_len
    }

    /// The entries that the disk uses.
    pub(crate) fn entries(&self) -> u64 {
        self.table.entries()
    }

    /// Whether more than `bound` entries are of a kind; the table is read no further than it takes to know that.
    pub(crate) fn has_more_than<S: Storage>(
        &mut self,
        storage: &mut S,
        bound: u64,
        accept: impl Fn(u64) -> bool,
    ) -> Result<bool, StorageError> {
        self.table.has_more_than(storage, bound, accept)
    }

    /// Whether the part of the table that the disk uses lies in a file of `file_len` bytes.
    pub(crate) fn is_inside(&self, file_len: u64) -> bool {
        self.table.entries() == 0 || self.table.end() <= file_len
    }

    /// The run at `offset`, which is below the length of the disk; `decode` tells what an entry means.
    pub(crate) fn extent_at<S: Storage>(
        &mut self,
        storage: &mut S,
        offset: u64,
        decode: impl Fn(u64) -> Place,
    ) -> Result<Extent, Error> {
        if let Some(extent) = self.last.and_then(|last| last.part_from(offset)) {
            return Ok(extent);
        }
        let (index, within, rest) =
            (offset / self.block_len, offset % self.block_len, self.disk_len - offset);
        // Zeros that say that there is nothing need not be read.
        let empty = Some(decode(0)).filter(|place| matches!(place, Place::Unallocated | Place::Zero));
        let in_hole = if empty.is_some() { self.table.in_hole(storage, index)? } else { 0 };
        let (place, length) = match (empty, in_hole) {
            (Some(place), 1..) => (place, in_hole.saturating_mul(self.block_len)),
            _ => match self.table.from(storage, index)? {
                [] => (Place::Unallocated, u64::MAX),
                entries => run(entries.iter().map(|entry| decode(entry.value())), self.block_len),
            },
        };
        let extent = place.extent(offset, within, (length - within).min(rest)).ok_or_else(|| {
            let message = alloc::format!("Invalid block map entry {index}");
            Error::new(ErrorKind::Corrupt, "block map", message)
        })?;
        self.last = Some(extent);
        Ok(extent)
    }
}

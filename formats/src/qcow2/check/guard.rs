//! What an L2 table must not lie over, if it is to be written to.

use alloc::vec::Vec;

use super::references::References;
use super::stored::{Place, Stored};
use crate::{Error, Storage};

/// Metadata other than L2 tables.
pub(super) struct Guard {
    /// Ranges of the file in bytes: start and end.
    ranges: Vec<(u64, u64)>,
    /// The active L1 table.
    l1: (u64, u64),
    /// Clusters of refcount blocks, ascending.
    blocks: Vec<u64>,
    cluster_bits: u32,
}

impl Guard {
    pub(super) fn new<S: Storage>(
        storage: &mut S,
        references: &References<'_>,
        stored: &mut Stored,
    ) -> Result<Self, Error> {
        let header = references.header;
        let cluster_bits = header.cluster_bits();
        let mut blocks = Vec::new();
        for index in 0..stored.entries() {
            if let Place::At(offset) = stored.place(storage, index << stored.block_bits())? {
                blocks.push(offset >> cluster_bits.get());
            }
        }
        blocks.sort_unstable();
        let range = |offset: u64, length: u64| (offset, offset.saturating_add(length));
        let table = |offset: u64, entries: u32| range(offset, u64::from(entries) * 8);
        let (refcount_len, refcount_offset) = header.refcount_table();
        let mut ranges = Vec::new();
        ranges.push(range(0, cluster_bits.size()));
        ranges.push(range(refcount_offset, refcount_len));
        ranges.push(range(references.snapshots.offset, references.snapshots.length));
        let snapshots = references.snapshots.places.iter().filter(|place| place.has_table(header));
        ranges.extend(snapshots.map(|place| table(place.l1_offset, place.l1_size)));
        ranges.extend(references.bitmap_directory.map(|directory| range(directory.offset, directory.length)));
        ranges.extend(references.bitmaps.iter().map(|&(offset, entries)| table(offset, entries)));
        ranges.extend(references.luks.map(|area| range(area.offset, area.length)));
        let (l1_size, l1_offset) = header.l1_table();
        Ok(Self { ranges, l1: table(l1_offset, l1_size), blocks, cluster_bits: cluster_bits.get() })
    }

    fn is_free(&self, start: u64, end: u64) -> bool {
        let over = |&(from, to): &(u64, u64)| from < end && start < to;
        let block = self.blocks.partition_point(|&block| block < start >> self.cluster_bits);
        let blocks = self.blocks.get(block).is_some_and(|&block| block << self.cluster_bits < end);
        !self.ranges.iter().any(over) && !blocks
    }

    /// Whether an L2 table of `length` bytes at `offset` may be written to.
    pub(super) fn l2(&self, offset: u64, length: u64) -> bool {
        let end = offset.saturating_add(length);
        self.is_free(offset, end) && !(self.l1.0 < end && offset < self.l1.1)
    }

    /// Whether the active L1 table may be written to.
    pub(super) fn l1(&self) -> bool {
        self.is_free(self.l1.0, self.l1.1)
    }
}

//! The refcounts that the image stores. Section "Host cluster management".

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use zerocopy::big_endian::U64;

use super::super::header::{Header, TABLE_ENTRY_LEN};
use super::pen::Pen;
use crate::table::Table;
use crate::{Storage, StorageError};

/// Bits 9 to 63 of an entry of the refcount table: file offset of a refcount block.
pub(super) const OFFSET_MASK: u64 = !RESERVED;
/// Bits that must not be set in it.
pub(super) const RESERVED: u64 = 0x1ff;
/// Entries of the refcount table in memory at a time.
const WINDOW: u64 = 8192;
/// Most blocks in memory at a time.
const BLOCKS_MAX: usize = 4096;

/// Where the table says that a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// There is none: the counts are 0.
    None,
    /// At this file offset, a multiple of the cluster size.
    At(u64),
    /// At this file offset, which is not one.
    Unaligned(u64),
    /// At this file offset, which no file can have.
    Unreadable,
}

/// A block that was read.
#[derive(Debug)]
struct Block {
    index: u64,
    bytes: Box<[u8]>,
    dirty: bool,
}

/// The refcount table and some of its blocks.
#[derive(Debug)]
pub(super) struct Stored {
    table: Table<U64>,
    cluster_len: u64,
    order: u32,
    /// log2 of the counts of a block.
    block_bits: u32,
    /// Each block has one place here, by its index.
    blocks: Vec<Option<Block>>,
}

impl Stored {
    /// The table that the header has; blocks in memory take about `memory` bytes, at least one of them.
    pub(super) fn new(header: &Header, memory: usize) -> Self {
        let (length, offset) = header.refcount_table();
        let cluster_len = header.cluster_bits().size();
        let entries = length / TABLE_ENTRY_LEN;
        let room = usize::try_from(cluster_len).map_or(1, |length| (memory / length).clamp(1, BLOCKS_MAX));
        let mut blocks = Vec::new();
        blocks.resize_with(room, || None);
        Self {
            table: Table::new(offset, entries, WINDOW),
            cluster_len,
            order: header.refcount_order(),
            block_bits: header.refcount_block_bits(),
            blocks,
        }
    }

    /// Number of entries of the table.
    pub(super) fn entries(&self) -> u64 {
        self.table.entries()
    }

    /// log2 of the counts of a block.
    pub(super) fn block_bits(&self) -> u32 {
        self.block_bits
    }

    /// log2 of the bits of a count.
    pub(super) fn order(&self) -> u32 {
        self.order
    }

    /// An entry of the table, which may be anything.
    pub(super) fn entry<S: Storage>(&mut self, storage: &mut S, index: u64) -> Result<u64, StorageError> {
        Ok(self.table.from(storage, index)?.first().map_or(0, |entry| entry.get()))
    }

    /// Where the block is that has the count of the cluster.
    pub(super) fn place<S: Storage>(&mut self, storage: &mut S, cluster: u64) -> Result<Place, StorageError> {
        let index = cluster >> self.block_bits;
        if index >= self.table.entries() {
            return Ok(Place::None);
        }
        let offset = self.entry(storage, index)? & OFFSET_MASK;
        Ok(match offset {
            0 => Place::None,
            _ if !offset.is_multiple_of(self.cluster_len) => Place::Unaligned(offset),
            _ if offset.saturating_add(self.cluster_len) > i64::MAX as u64 => Place::Unreadable,
            _ => Place::At(offset),
        })
    }

    /// The block at `offset`, which has the count of the cluster.
    pub(super) fn block<S: Storage>(
        &mut self,
        storage: &mut S,
        cluster: u64,
        offset: u64,
    ) -> Result<&[u8], StorageError> {
        let index = cluster >> self.block_bits;
        let room = self.blocks.len() as u64;
        let slot = usize::try_from(index % room).unwrap_or(0);
        let Some(slot) = self.blocks.get_mut(slot) else { return Err(StorageError) };
        let stale = slot.as_ref().is_none_or(|block| block.index != index);
        if stale {
            let length = usize::try_from(self.cluster_len).map_err(|_| StorageError)?;
            let mut bytes = slot.take().map_or_else(|| vec![0; length].into_boxed_slice(), |old| old.bytes);
            storage.read_at(offset, &mut bytes)?;
            *slot = Some(Block { index, bytes, dirty: false });
        }
        Ok(slot.as_ref().map_or(&[], |block| &block.bytes))
    }

    /// Changes the count of a cluster in its block, which is the one that was read last.
    pub(super) fn set(&mut self, cluster: u64, count: u64) {
        let (order, within) = (self.order, cluster & ((1 << self.block_bits) - 1));
        let index = cluster >> self.block_bits;
        for block in self.blocks.iter_mut().flatten().filter(|block| block.index == index) {
            set_count(&mut block.bytes, order, within, count);
            block.dirty = true;
        }
    }

    /// Writes the blocks back that were changed.
    pub(super) fn write_back<S: Storage>(
        &mut self,
        storage: &mut S,
        pen: &mut dyn Pen<S>,
    ) -> Result<(), StorageError> {
        for slot in 0..self.blocks.len() {
            let Some(index) = self.blocks.get(slot).and_then(Option::as_ref).map(|block| block.index) else {
                continue;
            };
            let Place::At(offset) = self.place(storage, index << self.block_bits)? else { continue };
            if let Some(block) = self.blocks.get_mut(slot).and_then(Option::as_mut)
                && core::mem::take(&mut block.dirty)
            {
                pen.write(storage, offset, &block.bytes)?;
            }
        }
        Ok(())
    }

    /// The stored count of a cluster, if it can be read at all.
    pub(super) fn get<S: Storage>(
        &mut self,
        storage: &mut S,
        cluster: u64,
    ) -> Result<Result<u64, Place>, StorageError> {
        match self.place(storage, cluster)? {
            Place::None => Ok(Ok(0)),
            Place::At(offset) => {
                let (order, within) = (self.order, cluster & ((1 << self.block_bits) - 1));
                Ok(Ok(count(self.block(storage, cluster, offset)?, order, within)))
            }
            broken => Ok(Err(broken)),
        }
    }
}

/// The count number `index` of a block; counts are 2 to the power of `order` bits wide, narrow ones from the low end of
/// a byte on.
pub(in crate::qcow2) fn count(block: &[u8], order: u32, index: u64) -> u64 {
    let bit = index << order;
    let at = usize::try_from(bit / 8).unwrap_or(usize::MAX);
    if order < 3 {
        let byte = block.get(at).copied().unwrap_or(0);
        return u64::from(byte >> (bit % 8)) & ((1 << (1 << order)) - 1);
    }
    let bytes = block.get(at..at.saturating_add(1 << (order - 3))).unwrap_or(&[]);
    bytes.iter().fold(0, |count, &byte| count << 8 | u64::from(byte))
}

/// Changes the count number `index` of a block; see [`count`].
pub(in crate::qcow2) fn set_count(block: &mut [u8], order: u32, index: u64, count: u64) {
    let bit = index << order;
    let at = usize::try_from(bit / 8).unwrap_or(usize::MAX);
    if order < 3 {
        if let Some(byte) = block.get_mut(at) {
            let mask = u8::MAX >> (8 - (1 << order));
            let low = u8::try_from(count & u64::from(mask)).unwrap_or(mask);
            *byte = *byte & !(mask << (bit % 8)) | low << (bit % 8);
        }
        return;
    }
    let width = 1 << (order - 3);
    if let Some(bytes) = block.get_mut(at..at.saturating_add(width)) {
        bytes.copy_from_slice(&count.to_be_bytes()[8 - width..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width() {
        let block = [0b1010_0110, 0x35, 0x01, 0x02, 0, 0, 0, 9];
        let counts = |order, indices: core::ops::Range<u64>| {
            indices.map(|index| count(&block, order, index)).collect::<Vec<_>>()
        };
        assert_eq!(counts(0, 0..8), [0, 1, 1, 0, 0, 1, 0, 1]);
        assert_eq!(counts(1, 0..4), [2, 1, 2, 2]);
        assert_eq!(counts(2, 2..4), [5, 3]);
        assert_eq!(counts(3, 0..2), [0xa6, 0x35]);
        assert_eq!(counts(4, 1..2), [0x0102]);
        assert_eq!(counts(5, 1..2), [9]);
        assert_eq!(counts(6, 0..1), [0xa635_0102_0000_0009]);
        for order in 0..=6 {
            let mut block = [0x5a; 8];
            let last = (64 >> order) - 1;
            set_count(&mut block, order, last, 0);
            assert_eq!(count(&block, order, last), 0);
            set_count(&mut block, order, last, 1);
            assert_eq!(count(&block, order, last), 1);
            assert_eq!(block[0], if order == 6 { 0 } else { 0x5a });
        }
    }
}

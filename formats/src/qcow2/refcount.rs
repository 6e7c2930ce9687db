//! Reference counts, as far as they tell whether an image was preallocated.
//!
//! A file with many more clusters in use than space on disk has holes where its clusters are: metadata was preallocated
//! and most data clusters were never written. In such an image `qemu-img` takes the holes of the file into account.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::big_endian::U64;

use super::header::{Header, TABLE_ENTRY_LEN};
use crate::{Storage, StorageError};

/// Bits 9 to 63 of a refcount table entry: file offset of a refcount block. Section "Host cluster management".
const OFFSET_MASK: u64 = !0x1ff;
/// Bytes of a table or block read at a time.
const CHUNK: usize = 64 << 10;

/// Whether at least as many clusters of the file are in use as an image without preallocation could have: ten ninths of
/// the clusters of disk space, and two more.
///
/// Every refcount block is a cluster in use. So as soon as there are enough blocks the answer is known, and the number
/// of blocks ever read is bounded by the disk space of the file.
pub(super) fn preallocated<S: Storage>(storage: &mut S, header: &Header) -> Result<bool, StorageError> {
    let cluster_bits = header.cluster_bits();
    let real = storage.allocated() >> cluster_bits.get();
    let threshold = (real.saturating_mul(10) / 9).max(real.saturating_add(2));
    let clusters = storage.len().div_ceil(cluster_bits.size());
    let per_block = 1u64 << (cluster_bits.get() + 3 - header.refcount_order());
    let (table_len, table_offset) = header.refcount_table();
    let entries = (table_len / TABLE_ENTRY_LEN).min(clusters.div_ceil(per_block));

    let mut blocks = 0u64;
    let mut table = Table::new(table_offset, entries);
    while let Some((_, chunk)) = table.next(storage)? {
        blocks += chunk.iter().filter(|entry| entry.get() & OFFSET_MASK != 0).count() as u64;
        if blocks >= threshold {
            return Ok(true);
        }
    }

    let mut used = 0u64;
    let mut buffer = vec![0; CHUNK];
    let mut table = Table::new(table_offset, entries);
    while let Some((first, chunk)) = table.next(storage)? {
        for (index, entry) in (first..).zip(chunk) {
            let block = entry.get() & OFFSET_MASK;
            if !cluster_bits.aligned(block) {
                return Ok(false);
            }
            if block == 0 || block >= storage.len() {
                continue;
            }
            let count = per_block.min(clusters - index * per_block);
            used += used_in_block(storage, block, count, header.refcount_order(), &mut buffer)?;
            if used >= threshold {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The refcount table, chunk by chunk.
struct Table {
    offset: u64,
    entries: u64,
    done: u64,
    chunk: Vec<U64>,
}

impl Table {
    fn new(offset: u64, entries: u64) -> Self {
        Self { offset, entries, done: 0, chunk: Vec::new() }
    }

    /// The next entries and the index of the first of them.
    fn next<S: Storage>(&mut self, storage: &mut S) -> Result<Option<(u64, &[U64])>, StorageError> {
        let first = self.done;
        let left = usize::try_from(self.entries - first).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(None);
        }
        self.chunk.resize(left.min(CHUNK / 8), U64::ZERO);
        storage.read_at(self.offset + first * TABLE_ENTRY_LEN, self.chunk.as_mut_bytes())?;
        self.done += self.chunk.len() as u64;
        Ok(Some((first, &self.chunk)))
    }
}

/// Of the first `count` clusters of a block, how many have a count other than 0.
fn used_in_block<S: Storage>(
    storage: &mut S,
    block: u64,
    count: u64,
    order: u32,
    buffer: &mut [u8],
) -> Result<u64, StorageError> {
    let mut used = 0;
    let mut position = block;
    let bits = count << order;
    let mut left = bits.div_ceil(8);
    while left != 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let bytes = buffer.get_mut(..length).unwrap_or_default();
        storage.read_at(position, bytes)?;
        position += length as u64;
        left -= length as u64;
        if let (0, Some(last)) = (left, bytes.last_mut()) {
            // Counts narrower than a byte start at its low end; those after the last one asked for do not matter.
            *last &= 0xff >> ((8 - bits % 8) % 8);
        }
        used += used_in(bytes, order);
    }
    Ok(used)
}

/// How many of the counts in `bytes` are not 0. Section "Host cluster management".
fn used_in(bytes: &[u8], order: u32) -> u64 {
    let in_bytes = |fold: fn(u8) -> u8| bytes.iter().map(|&byte| u64::from(fold(byte).count_ones())).sum();
    match order {
        0 => in_bytes(|byte| byte),
        1 => in_bytes(|byte| (byte | byte >> 1) & 0x55),
        2 => in_bytes(|byte| (byte | byte >> 1 | byte >> 2 | byte >> 3) & 0x11),
        _ => {
            let width = 1 << (order - 3);
            bytes.chunks_exact(width).filter(|count| count.iter().any(|&byte| byte != 0)).count() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width_are_told_from_zero() {
        let bytes = [0x81, 0, 0, 0x10, 0, 0, 0, 1];
        let expected = [4, 4, 4, 3, 3, 2, 1];
        for (order, used) in (0..).zip(expected) {
            assert_eq!(used_in(&bytes, order), used, "order {order}");
        }
    }
}

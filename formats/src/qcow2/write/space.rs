//! Clusters of the file: which are free, taking them, and giving them back. Section "Host cluster management".
//!
//! Clusters are taken where `qemu-img` takes them: where the first run of free ones is that is long enough, from the index
//! on where the last search ended. A refcount block is made when a cluster is to be counted that has none, out of the next free
//! cluster, and the search begins anew.

use alloc::vec::Vec;
use core::ops::Range;

use super::super::check::stored::{count, set_count};
use super::super::header::{REFCOUNT_TABLE_MAX, REFCOUNT_TABLE_OFFSET, TABLE_ENTRY_LEN};
use super::pages::{Kind, Pages};
use crate::{Error, ErrorKind, StorageMut};

/// Bits 9 to 63 of an entry of the refcount table: file offset of a refcount block.
const OFFSET_MASK: u64 = !0x1ff;
/// Offsets that an L1 or L2 entry can hold end here.
pub(super) const OFFSET_END: u64 = 1 << 56;
/// How many clusters in use may lie behind the end of the file.
const BEYOND_MAX: u64 = 1 << 20;
/// Most ranges that wait until they can be given back.
const FREED_MAX: usize = 1 << 14;

/// Where the refcounts are, and of what width.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) cluster_bits: u32,
    pub(super) refcount_order: u32,
    /// Most that an offset in the descriptor of a compressed cluster can be.
    pub(super) compressed_end: u64,
}

/// Whether clusters were counted, or a refcount block had to be made first, so that they may not be free any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Done,
    Again,
}

/// All clusters of a file.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) pages: Pages,
    geometry: Geometry,
    /// First cluster and clusters of the refcount table.
    table: Range<u64>,
    /// One more than the highest index of a refcount block.
    blocks_end: u64,
    /// Where a search begins.
    free: u64,
    /// Where compressed data ends within a cluster, which has room for more; 0 if there is none such.
    free_byte: u64,
    /// Length of the file in clusters at first.
    file_end: u64,
    /// Clusters that are never free, whatever is counted: ascending, apart from each other.
    reserved: Vec<Range<u64>>,
    /// Bytes that are to be given back once nothing on the disk refers to them.
    freed: Vec<Range<u64>>,
}

fn corrupt(message: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "refcount table", message)
}

fn too_large() -> Error {
    Error::new(ErrorKind::Limit, "refcount table", "File too large")
}

impl Space {
    /// The clusters of a file, the refcount table of which takes the clusters `table`. The file has `file_end` clusters.
    pub(super) fn new(pages: Pages, geometry: Geometry, table: Range<u64>, file_end: u64) -> Self {
        Self {
            pages,
            geometry,
            table,
            blocks_end: 0,
            free: 0,
            free_byte: 0,
            file_end,
            reserved: Vec::new(),
            freed: Vec::new(),
        }
    }

    /// A new file with header, refcount table and one refcount block, in that order.
    pub(super) fn lay_out<S: StorageMut>(&mut self, storage: &mut S) -> Result<(), Error> {
        let cluster = self.cluster_len();
        self.pages.begin(storage, Kind::RefcountTable, cluster, cluster)?;
        self.pages.begin(storage, Kind::RefcountBlock, 2 * cluster, cluster)?;
        self.set_block(storage, 0, 2 * cluster)?;
        self.free = 3;
        self.add(storage, 0..3)
    }

    /// Says which clusters are never free in a file that is opened, and reads how far its refcount table is in use.
    pub(super) fn reserve<S: StorageMut>(
        &mut self,
        storage: &mut S,
        mut reserved: Vec<Range<u64>>,
    ) -> Result<(), Error> {
        reserved.sort_unstable_by_key(|range| range.start);
        for range in reserved {
            match self.reserved.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => self.reserved.push(range),
            }
        }
        for index in 0..self.table_entries() {
            if self.block(storage, index)? != 0 {
                self.blocks_end = index + 1;
            }
        }
        Ok(())
    }

    /// Whether any of these clusters is never free.
    pub(super) fn is_reserved(&self, clusters: &Range<u64>) -> bool {
        let at = self.reserved.partition_point(|range| range.end <= clusters.start);
        let table = self.table.start < clusters.end && clusters.start < self.table.end;
        table || self.reserved.get(at).is_some_and(|range| range.start < clusters.end)
    }

    /// File offset in bytes of the refcount table, and its clusters.
    pub(super) fn table(&self) -> (u64, u32) {
        let clusters = u32::try_from(self.table.end - self.table.start).unwrap_or(u32::MAX);
        (self.table.start << self.geometry.cluster_bits, clusters)
    }

    fn cluster_len(&self) -> u64 {
        1 << self.geometry.cluster_bits
    }

    /// log2 of the clusters that a block counts.
    fn block_bits(&self) -> u32 {
        self.geometry.cluster_bits + 3 - self.geometry.refcount_order
    }

    fn table_entries(&self) -> u64 {
        (self.table.end - self.table.start) << self.geometry.cluster_bits >> 3
    }

    /// Most that a refcount can be.
    fn refcount_max(&self) -> u64 {
        u64::MAX >> (64 - (1 << self.geometry.refcount_order))
    }

    /// Takes `count` clusters in a row, at least one, and gives the file offset of the first.
    pub(super) fn allocate<S: StorageMut>(&mut self, storage: &mut S, count: u64) -> Result<u64, Error> {
        loop {
            let start = self.find(storage, count, OFFSET_END)?;
            if self.count(storage, start..start + count)? == Counted::Done {
                return Ok(start << self.geometry.cluster_bits);
            }
        }
    }

    /// Takes up to `count` clusters from the file offset `offset` on, as many as are free there, and gives their number.
    pub(super) fn allocate_at<S: StorageMut>(
        &mut self,
        storage: &mut S,
        offset: u64,
        count: u64,
    ) -> Result<u64, Error> {
        let start = offset >> self.geometry.cluster_bits;
        let most = (OFFSET_END >> self.geometry.cluster_bits).saturating_sub(start);
        loop {
            let free = self.free_from(storage, start, count.min(most))?;
            if self.count(storage, start..start + free)? == Counted::Done {
                return Ok(free);
            }
        }
    }

    /// Takes `length` bytes, at least one and at most a cluster, for compressed data: behind the last such if there is room.
    pub(super) fn allocate_bytes<S: StorageMut>(
        &mut self,
        storage: &mut S,
        length: u64,
    ) -> Result<u64, Error> {
        let (bits, cluster) = (self.geometry.cluster_bits, self.cluster_len());
        let mut offset = self.free_byte;
        if offset != 0 && self.refcount(storage, offset >> bits)? == self.refcount_max() {
            offset = 0;
        }
        let mut room = cluster - offset % cluster;
        loop {
            if offset == 0 || room < length {
                let end = self.geometry.compressed_end.min(OFFSET_END);
                let new = self.find(storage, 1, end)? << bits;
                if offset == 0 || offset.next_multiple_of(cluster) != new {
                    (offset, room) = (new, cluster);
                } else {
                    room += cluster;
                }
            }
            let clusters = offset >> bits..((offset + length - 1) >> bits) + 1;
            if self.count(storage, clusters)? == Counted::Done {
                break;
            }
            offset = 0;
        }
        self.free_byte = offset + length;
        if self.free_byte.is_multiple_of(cluster) {
            self.free_byte = 0;
        }
        Ok(offset)
    }

    /// Makes a new refcount table behind all of the file, which ends at the file offset `end`, for what there is and `additional`
    /// clusters more. Gives the file offset behind it.
    pub(super) fn make_table_for<S: StorageMut>(
        &mut self,
        storage: &mut S,
        end: u64,
        additional: u64,
    ) -> Result<u64, Error> {
        let bits = self.geometry.cluster_bits;
        Ok(self.make_table(storage, end >> bits, additional, Room::Exact, None)? << bits)
    }

    /// Gives `length` bytes at the file offset `offset` back once no table on the disk refers to them.
    pub(super) fn free<S: StorageMut>(
        &mut self,
        storage: &mut S,
        offset: u64,
        length: u64,
    ) -> Result<(), Error> {
        let whole = offset.is_multiple_of(self.cluster_len());
        match self.freed.last_mut() {
            Some(last) if last.end == offset && whole => last.end += length,
            _ => self.freed.push(offset..offset + length),
        }
        if self.freed.len() >= FREED_MAX { self.settle(storage) } else { Ok(()) }
    }

    /// Writes all tables, and then gives back what they do not refer to any more.
    pub(super) fn settle<S: StorageMut>(&mut self, storage: &mut S) -> Result<(), Error> {
        self.pages.write_back(storage)?;
        for bytes in core::mem::take(&mut self.freed) {
            let bits = self.geometry.cluster_bits;
            self.subtract(storage, bytes.start >> bits..((bytes.end - 1) >> bits) + 1)?;
        }
        Ok(())
    }

    /// The refcount of a cluster.
    pub(super) fn refcount<S: StorageMut>(&mut self, storage: &mut S, cluster: u64) -> Result<u64, Error> {
        let (order, within) = (self.geometry.refcount_order, cluster % (1 << self.block_bits()));
        let block = self.block(storage, cluster >> self.block_bits())?;
        if block == 0 {
            return Ok(0);
        }
        let (skip, index) = self.within_block(within);
        Ok(count(self.pages.get(storage, Kind::RefcountBlock, block + skip)?, order, index))
    }

    /// For the refcount of this number of a block: a multiple of 8 bytes to skip, and its number from there on.
    fn within_block(&self, number: u64) -> (u64, u64) {
        let skip = (number << self.geometry.refcount_order) / 64 * 8;
        (skip, number - ((skip * 8) >> self.geometry.refcount_order))
    }

    /// File offset of the refcount block of this index; 0 if there is none.
    fn block<S: StorageMut>(&mut self, storage: &mut S, index: u64) -> Result<u64, Error> {
        if index >= self.table_entries() {
            return Ok(0);
        }
        let at = (self.table.start << self.geometry.cluster_bits) + index * TABLE_ENTRY_LEN;
        let offset = self.pages.word(storage, Kind::RefcountTable, at)? & OFFSET_MASK;
        if !offset.is_multiple_of(self.cluster_len()) || offset > i64::MAX as u64 - self.cluster_len() {
            return Err(corrupt("Refblock offset unaligned"));
        }
        Ok(offset)
    }

    fn set_block<S: StorageMut>(&mut self, storage: &mut S, index: u64, offset: u64) -> Result<(), Error> {
        let at = (self.table.start << self.geometry.cluster_bits) + index * TABLE_ENTRY_LEN;
        self.blocks_end = self.blocks_end.max(index + 1);
        self.pages.set_word(storage, Kind::RefcountTable, at, offset)
    }

    /// How many of `count` clusters from `start` on are free, up to the first that is not.
    fn free_from<S: StorageMut>(&mut self, storage: &mut S, start: u64, count: u64) -> Result<u64, Error> {
        let mut free = 0;
        while free < count {
            let (same, used) = self.run(storage, start + free, count - free)?;
            if used {
                break;
            }
            free += same;
        }
        if free > 0 && self.is_reserved(&(start..start + free)) {
            return Err(corrupt("A cluster with metadata in it counts as free"));
        }
        Ok(free)
    }

    /// Of `most` clusters from `start` on, for how many it is known at once whether they are used: at least one.
    fn run<S: StorageMut>(&mut self, storage: &mut S, start: u64, most: u64) -> Result<(u64, bool), Error> {
        let (order, bits) = (self.geometry.refcount_order, self.block_bits());
        let within = start % (1 << bits);
        let most = most.min((1 << bits) - within);
        let block = self.block(storage, start >> bits)?;
        if block == 0 {
            return Ok((most, false));
        }
        let (skip, first) = self.within_block(within);
        let bytes = self.pages.get(storage, Kind::RefcountBlock, block + skip)?;
        let most = most.min(((bytes.len() as u64 * 8) >> order) - first);
        let used = count(bytes, order, first) != 0;
        let same = (1..most).find(|&number| (count(bytes, order, first + number) != 0) != used);
        Ok((same.unwrap_or(most), used))
    }

    /// Where `count` free clusters in a row are, below the file offset `end`; the next search begins behind them.
    fn find<S: StorageMut>(&mut self, storage: &mut S, count: u64, end: u64) -> Result<u64, Error> {
        let (mut start, mut free, mut beyond) = (self.free, 0, 0);
        let last = end >> self.geometry.cluster_bits;
        while free < count {
            let (same, used) = self.run(storage, start + free, count - free)?;
            if !used {
                free += same;
                continue;
            }
            start += free + same;
            free = 0;
            if start >= self.file_end {
                beyond += same;
            }
            if beyond > BEYOND_MAX || start >= last {
                return Err(too_large());
            }
        }
        if start.saturating_add(count) > last {
            return Err(too_large());
        }
        if self.is_reserved(&(start..start + count)) {
            return Err(corrupt("A cluster with metadata in it counts as free"));
        }
        self.free = start + count;
        self.file_end = self.file_end.max(self.free);
        Ok(start)
    }

    /// Counts the clusters once more. If a refcount block is missing, one is made, and nothing is counted.
    fn count<S: StorageMut>(&mut self, storage: &mut S, clusters: Range<u64>) -> Result<Counted, Error> {
        if clusters.is_empty() {
            return Ok(Counted::Done);
        }
        let bits = self.block_bits();
        for index in clusters.start >> bits..((clusters.end - 1) >> bits) + 1 {
            if self.block(storage, index)? != 0 {
                continue;
            }
            // What has a block is counted already while the next one is made, which must not come to lie there.
            let reached = clusters.start.max(index << bits);
            self.add(storage, clusters.start..reached)?;
            self.make_block(storage, index, reached)?;
            self.subtract(storage, clusters.start..reached)?;
            self.free = self.free.min(clusters.start);
            return Ok(Counted::Again);
        }
        self.add(storage, clusters)?;
        Ok(Counted::Done)
    }

    /// Makes the refcount block of this index, for the sake of `cluster`. It can take several turns.
    fn make_block<S: StorageMut>(&mut self, storage: &mut S, index: u64, cluster: u64) -> Result<(), Error> {
        let (bits, block_bits, cluster_len) =
            (self.geometry.cluster_bits, self.block_bits(), self.cluster_len());
        let block = self.find(storage, 1, OFFSET_END)?;
        let counts_itself = block >> block_bits == index;
        if !counts_itself && self.count(storage, block..block + 1)? == Counted::Again {
            return Ok(());
        }
        self.pages.begin(storage, Kind::RefcountBlock, block << bits, cluster_len)?;
        if counts_itself {
            let (order, (skip, number)) =
                (self.geometry.refcount_order, self.within_block(block % (1 << block_bits)));
            let bytes = self.pages.get_mut(storage, Kind::RefcountBlock, (block << bits) + skip)?;
            set_count(bytes, order, number, 1);
        }
        if index < self.table_entries() {
            return self.set_block(storage, index, block << bits);
        }
        let blocks = (cluster.max(block) + 1).div_ceil(1 << block_bits);
        self.make_table(storage, blocks << block_bits, 0, Room::Generous, Some((index, block << bits)))?;
        Ok(())
    }

    /// Makes a refcount table from the cluster `start` on, behind which nothing is used, with the blocks that count it. It has
    /// the block `more`, index and file offset, in it, and room for `additional` clusters. Gives the cluster behind it.
    fn make_table<S: StorageMut>(
        &mut self,
        storage: &mut S,
        start: u64,
        additional: u64,
        room: Room,
        more: Option<(u64, u64)>,
    ) -> Result<u64, Error> {
        let (bits, block_bits, cluster_len) =
            (self.geometry.cluster_bits, self.block_bits(), self.cluster_len());
        let blocks = self.blocks_for(start.saturating_add(additional), room)?;
        let entries = match room {
            Room::Exact => blocks,
            Room::Generous => blocks + blocks.div_ceil(2),
        };
        let old = self.table.clone();
        let first = start >> block_bits;
        let mut missing = Vec::new();
        for index in first..blocks {
            if self.block(storage, index)? == 0 && more.is_none_or(|(known, _)| known != index) {
                missing.push(index);
            }
        }
        let table = start + missing.len() as u64;
        let end = table + (entries * TABLE_ENTRY_LEN).div_ceil(cluster_len);
        if (end - table) << bits > REFCOUNT_TABLE_MAX || end > OFFSET_END >> bits {
            return Err(too_large());
        }
        self.pages.begin(storage, Kind::RefcountTable, table << bits, (end - table) << bits)?;
        let entries = self.blocks_end.min((end - table) << bits >> 3);
        for index in 0..entries {
            let at = index * TABLE_ENTRY_LEN;
            let entry = self.pages.word(storage, Kind::RefcountTable, (old.start << bits) + at)?;
            if entry != 0 {
                self.pages.set_word(storage, Kind::RefcountTable, (table << bits) + at, entry)?;
            }
        }
        self.table = table..end;
        if let Some((index, block)) = more {
            self.set_block(storage, index, block)?;
        }
        for (index, block) in missing.into_iter().zip(start..) {
            self.pages.begin(storage, Kind::RefcountBlock, block << bits, cluster_len)?;
            self.set_block(storage, index, block << bits)?;
        }
        self.add(storage, start..end)?;
        self.file_end = self.file_end.max(end);
        self.pages.write_back(storage)?;
        if self.pages.durable {
            let (offset, clusters) = self.table();
            let mut fields = Vec::from(offset.to_be_bytes());
            fields.extend(clusters.to_be_bytes());
            storage.write_at(REFCOUNT_TABLE_OFFSET, &fields)?;
            storage.flush()?;
        }
        self.pages.forget(old.start << bits, (old.end - old.start) << bits);
        self.subtract(storage, old)?;
        Ok(end)
    }

    /// Refcount blocks that count `clusters`, a table for these blocks, and themselves.
    fn blocks_for(&self, mut clusters: u64, mut room: Room) -> Result<u64, Error> {
        let per_cluster = self.cluster_len() / TABLE_ENTRY_LEN;
        let (mut blocks, mut table) = (0_u64, 0);
        loop {
            let last = blocks + table;
            blocks = clusters.checked_add(last).ok_or_else(too_large)?.div_ceil(1 << self.block_bits());
            table = blocks.div_ceil(per_cluster);
            if blocks * TABLE_ENTRY_LEN > REFCOUNT_TABLE_MAX {
                return Err(too_large());
            }
            if blocks + table == last {
                match room {
                    Room::Exact => return Ok(blocks),
                    Room::Generous => clusters += table.div_ceil(2),
                }
                room = Room::Exact;
            }
        }
    }

    /// Counts clusters once more, all of which have a refcount block.
    fn add<S: StorageMut>(&mut self, storage: &mut S, clusters: Range<u64>) -> Result<(), Error> {
        let most = self.refcount_max();
        self.change(storage, clusters, |count| {
            let more = count.checked_add(1).filter(|&count| count <= most);
            more.ok_or_else(|| corrupt("A refcount is as large as it can be"))
        })
        .map(|_| ())
    }

    /// Counts clusters once less.
    fn subtract<S: StorageMut>(&mut self, storage: &mut S, clusters: Range<u64>) -> Result<(), Error> {
        let first = self.change(storage, clusters, |count| {
            count.checked_sub(1).ok_or_else(|| corrupt("A cluster in use has no refcount"))
        })?;
        if let Some(first) = first {
            self.free = self.free.min(first);
        }
        Ok(())
    }

    /// Changes the refcounts of clusters, and gives the first that is free by that.
    fn change<S: StorageMut>(
        &mut self,
        storage: &mut S,
        clusters: Range<u64>,
        to: impl Fn(u64) -> Result<u64, Error>,
    ) -> Result<Option<u64>, Error> {
        let (order, bits, mut at, mut freed) =
            (self.geometry.refcount_order, self.block_bits(), clusters.start, None);
        while at < clusters.end {
            let block = self.block(storage, at >> bits)?;
            if block == 0 {
                return Err(corrupt("A cluster in use has no refcount"));
            }
            let within = at % (1 << bits);
            let (skip, first) = self.within_block(within);
            let bytes = self.pages.get_mut(storage, Kind::RefcountBlock, block + skip)?;
            let room = ((bytes.len() as u64 * 8) >> order) - first;
            let many = room.min((1 << bits) - within).min(clusters.end - at);
            for number in 0..many {
                let new = to(count(bytes, order, first + number))?;
                set_count(bytes, order, first + number, new);
                if new == 0 {
                    freed = freed.or(Some(at + number));
                    if self.free_byte >> self.geometry.cluster_bits == at + number {
                        self.free_byte = 0;
                    }
                }
            }
            at += many;
        }
        Ok(freed)
    }
}

/// How long a new refcount table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// As long as it must be, in whole clusters.
    Exact,
    /// Half as long again, so that it will not be too short soon.
    Generous,
}

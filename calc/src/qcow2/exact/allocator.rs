//! Which clusters of a new file are taken, and where the refcount structures come to lie that count them.
//!
//! A new cluster is taken where the first run of free ones is that is long enough, from the index on where the last search
//! ended. A refcount block is made when a cluster is to be counted that has none, out of the next free cluster, and the
//! search begins anew. Where the refcount table has no room for the block, a table half as long again is made, at the
//! first cluster that the next block counts, with the blocks that count it; the old table is free from then on. As read off the
//! files that `qemu-img` writes.

use super::spans::Spans;
use crate::qcow2::Geometry;

/// Bytes of an entry of the refcount table.
const TABLE_ENTRY: u64 = 8;

/// The longest refcount table that is opened (`QCOW_MAX_REFTABLE_SIZE`).
const MAX_TABLE: u64 = 8 << 20;

/// Unit: clusters, if not said otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allocator {
    cluster_size: u64,
    /// Clusters that a refcount block counts.
    per_block: u64,
    used: Spans,
    /// Where a search begins.
    free: u64,
    /// Indices of the refcount blocks there are.
    blocks: Spans,
    table: u64,
    table_length: u64,
    /// Length of the file in bytes.
    length: u64,
}

impl Allocator {
    /// A file with header, refcount table and one refcount block, in that order.
    pub(super) fn new(geometry: Geometry) -> Self {
        let cluster_size = geometry.cluster_size.bytes();
        let mut used = Spans::new();
        used.insert(0..3);
        let mut blocks = Spans::new();
        blocks.insert(0..1);
        Self {
            cluster_size,
            per_block: cluster_size * 8 / geometry.refcount_bits.bits(),
            used,
            free: 3,
            blocks,
            table: 1,
            table_length: 1,
            length: 3 * cluster_size,
        }
    }

    /// Takes `count` clusters in a row and gives the first; at least one.
    pub(super) fn allocate(&mut self, count: u64) -> u64 {
        loop {
            let start = self.find(count);
            if self.count(start, count) {
                return start;
            }
        }
    }

    /// Takes up to `count` clusters from `start` on, as many as are free there, and gives their number.
    pub(super) fn allocate_at(&mut self, start: u64, count: u64) -> u64 {
        loop {
            let free = self.used.from(start).map_or(count, |(used, _)| used.saturating_sub(start));
            let count = count.min(free);
            if count == 0 || self.count(start, count) {
                return count;
            }
        }
    }

    /// Makes a new refcount table behind all that is used, to count what there is and `additional` clusters
    /// more. Gives the cluster behind it.
    pub(super) fn make_table_for(&mut self, additional: u64) -> u64 {
        self.make_table(self.used.end(), additional, Room::Exact)
    }

    /// The file is at least `length` bytes long.
    pub(super) fn write_to(&mut self, length: u64) {
        self.length = self.length.max(length);
    }

    /// Length of the file in bytes; `None` where the refcount table is too long.
    pub(super) fn length(&self) -> Option<u64> {
        (self.table_length <= MAX_TABLE.div_ceil(self.cluster_size)).then_some(self.length)
    }

    /// Where `count` free clusters in a row are; the next search begins behind them.
    fn find(&mut self, count: u64) -> u64 {
        let mut start = self.free;
        while let Some((used, end)) = self.used.from(start).filter(|(used, _)| *used < start + count) {
            start = end.max(used);
        }
        self.free = start + count;
        start
    }

    /// Counts the clusters as used. If a refcount block is missing, one is made, and the caller searches again.
    fn count(&mut self, start: u64, count: u64) -> bool {
        let end = start + count;
        let blocks = start / self.per_block..(end - 1) / self.per_block + 1;
        let Some(missing) = self.blocks.first_missing(blocks) else {
            self.used.insert(start..end);
            return true;
        };
        // What has a block is counted already while the next one is made, which must not come to lie there.
        let reached = start.max(missing * self.per_block);
        if self.free < reached {
            self.used.insert(start..reached);
            self.make_block(missing, reached);
            self.used.remove(start..reached);
        } else {
            self.make_block(missing, reached);
        }
        self.free = self.free.min(start);
        false
    }

    /// Makes the refcount block of this index, for the sake of `cluster`. It can take several turns.
    fn make_block(&mut self, index: u64, cluster: u64) {
        let block = self.find(1);
        if block / self.per_block == index {
            self.used.insert(block..block + 1);
        } else if !self.count(block, 1) {
            return;
        }
        self.write_to((block + 1) * self.cluster_size);
        self.blocks.insert(index..index + 1);
        if index >= self.table_length * self.cluster_size / TABLE_ENTRY {
            let blocks = (cluster.max(block) + 1).div_ceil(self.per_block);
            self.make_table(blocks * self.per_block, 0, Room::Generous);
        }
    }

    fn make_table(&mut self, start: u64, additional: u64, room: Room) -> u64 {
        let per_cluster = self.cluster_size / TABLE_ENTRY;
        let blocks = self.blocks_for(start + additional, room);
        let entries = match room {
            Room::Exact => blocks,
            Room::Generous => blocks + blocks.div_ceil(2),
        };
        let covered = start / self.per_block..blocks;
        let table = start + self.blocks.count_missing(covered.clone());
        let table_length = entries.div_ceil(per_cluster);
        let end = table + table_length;
        self.blocks.insert(covered);
        self.used.insert(start..end);
        self.write_to(end * self.cluster_size);

        let old = self.table..self.table + self.table_length;
        self.free = self.free.min(old.start);
        self.used.remove(old);
        (self.table, self.table_length) = (table, table_length);
        end
    }

    /// Blocks that count `clusters`, a table for these blocks, and themselves.
    fn blocks_for(&self, mut clusters: u64, mut room: Room) -> u64 {
        let per_cluster = self.cluster_size / TABLE_ENTRY;
        let (mut blocks, mut table) = (0_u64, 0);
        loop {
            let last = blocks + table;
            blocks = (clusters + last).div_ceil(self.per_block);
            table = blocks.div_ceil(per_cluster);
            if blocks + table == last {
                match room {
                    Room::Exact => return blocks,
                    Room::Generous => clusters += table.div_ceil(2),
                }
                room = Room::Exact;
            }
        }
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

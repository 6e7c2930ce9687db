//! New refcount blocks and a new refcount table, behind the end of the file.
//!
//! Nothing that the image has is written over, and the header points to the new table only once all of it is on the
//! disk: whenever that is interrupted, the image is what it was before or what it is to become.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use zerocopy::IntoBytes;
use zerocopy::big_endian::{U32, U64};

use super::compare::Span;
use super::counts::{COUNT, Counts};
use super::log::Log;
use super::pen::{Pen, ReadOnly};
use super::references::References;
use super::stored::{Place, Stored, set_count};
use crate::qcow2::header::{Header, REFCOUNT_TABLE_MAX, REFCOUNT_TABLE_OFFSET, TABLE_ENTRY_LEN};
use crate::{Error, ErrorKind, Storage};

/// How often a plan is made, each time for a longer file.
const PLANS_MAX: usize = 8;

fn too_large() -> Error {
    Error::new(ErrorKind::Limit, "refcount table", "File too large")
}

/// Where the new structures come to lie.
struct Plan {
    /// Clusters of the new structures: the blocks, and then the table.
    clusters: Range<u64>,
    /// Indices of the blocks, ascending: those that have a count other than 0.
    blocks: Vec<u64>,
    /// First cluster of the table.
    table: u64,
}

/// Clusters that the refcount table and its blocks took so far, ascending, as often as each was used.
pub(super) struct Old(Vec<u64>);

impl Old {
    /// Looks through the table.
    pub(super) fn of<S: Storage>(
        storage: &mut S,
        header: &Header,
        stored: &mut Stored,
    ) -> Result<Self, Error> {
        let cluster_bits = header.cluster_bits();
        let clusters = storage.len().div_ceil(cluster_bits.size());
        let (length, offset) = header.refcount_table();
        let first = offset >> cluster_bits.get();
        let table = first..first + length.div_ceil(cluster_bits.size());
        let mut old: Vec<u64> = table.filter(|&cluster| cluster < clusters).collect();
        for index in 0..stored.entries() {
            if let Place::At(offset) = stored.place(storage, index << stored.block_bits())?
                && offset >> cluster_bits.get() < clusters
            {
                old.push(offset >> cluster_bits.get());
            }
        }
        old.sort_unstable();
        Ok(Self(old))
    }

    /// Clusters of the window, each once, and how often it was used.
    fn within(&self, window: Range<u64>) -> impl Iterator<Item = (u64, u64)> {
        let chunks = self.0.chunk_by(|a, b| a == b);
        chunks.filter_map(move |chunk| {
            let cluster = *chunk.first().filter(|cluster| window.contains(cluster))?;
            Some((cluster, chunk.len() as u64))
        })
    }
}

/// Counts all references anew, but for those of the refcount table, which goes, and builds another one with its blocks
/// for them. Answers the header as it is then.
pub(super) fn run<S: Storage>(
    storage: &mut S,
    references: &References<'_>,
    old: &Old,
    counts: &mut Counts,
    pen: &mut dyn Pen<S>,
    log: &mut Log<'_, '_>,
) -> Result<Header, Error> {
    let mut references = References { with_refcount_table: false, ..references.clone() };
    let header = references.header;
    let mut grown;
    let mut counts = counts;
    let mut plan = Plan::for_all(storage, &references, counts, log)?;
    for _ in 0..PLANS_MAX {
        if plan.clusters.start == counts.clusters() {
            break;
        }
        // What lies between is referred to, and becomes a part of the file.
        references.file_len = plan.clusters.start << header.cluster_bits().get();
        let more = counts.for_more(plan.clusters.start);
        counts.restart(0);
        grown = more;
        counts = &mut grown;
        plan = Plan::for_all(storage, &references, counts, log)?;
    }
    if plan.clusters.start != counts.clusters() {
        return Err(too_large());
    }
    let whole = counts.has_all();
    if !whole {
        counts.restart(0);
    }
    loop {
        if !whole {
            references.count(storage, counts, &mut ReadOnly, log)?;
        }
        plan.write_blocks(storage, header, counts, pen)?;
        for (cluster, uses) in old.within(counts.window()) {
            let reference = counts.get(cluster);
            let refcount = reference + uses;
            log.tell(format_args!("Repairing cluster {cluster} refcount={refcount} reference={reference}"));
        }
        if whole || !counts.next_window() {
            break;
        }
    }
    plan.write_table(storage, header, pen)?;
    pen.flush(storage)?;
    let header = header.with_refcount_table(plan.table, plan.clusters.end - plan.table);
    let (length, offset) = header.refcount_table();
    let clusters = u32::try_from(length / header.cluster_bits().size()).unwrap_or(u32::MAX);
    let mut fields = Vec::from(U64::new(offset).as_bytes());
    fields.extend_from_slice(U32::new(clusters).as_bytes());
    pen.write(storage, REFCOUNT_TABLE_OFFSET, &fields)?;
    pen.flush(storage)?;
    Ok(header)
}

impl Plan {
    /// Counts all references and plans for that.
    fn for_all<S: Storage>(
        storage: &mut S,
        references: &References<'_>,
        counts: &mut Counts,
        log: &mut Log<'_, '_>,
    ) -> Result<Self, Error> {
        let block_bits = references.header.refcount_block_bits();
        let mut used = Vec::new();
        counts.restart(0);
        loop {
            references.count(storage, counts, &mut ReadOnly, log)?;
            log.first = false;
            for span in Span::of(counts.window(), block_bits) {
                let index = span.first >> block_bits;
                let bytes = counts.page_from(span.first).iter().zip(span.clusters());
                if used.last() != Some(&index) && bytes.into_iter().any(|(byte, _)| byte & COUNT != 0) {
                    used.push(index);
                }
            }
            if counts.has_all() || !counts.next_window() {
                break;
            }
        }
        Self::new(references.header, counts, &used)
    }

    /// The structures for a file of which the blocks `used` have counts.
    fn new(header: &Header, counts: &Counts, used: &[u64]) -> Result<Self, Error> {
        let mut start = counts.clusters();
        loop {
            let plan = Self::at(header, start, used.to_vec()).ok_or_else(too_large)?;
            let length = plan.clusters.end - start;
            let free = counts.free_behind(start, length).ok_or_else(too_large)?;
            if free == start {
                return Ok(plan);
            }
            start = free;
        }
    }

    /// The structures from this cluster on, unless the table is too large.
    fn at(header: &Header, start: u64, mut used: Vec<u64>) -> Option<Self> {
        let block_bits = header.refcount_block_bits();
        let per_table_cluster = header.cluster_bits().size() / TABLE_ENTRY_LEN;
        let mut end = start + 1;
        loop {
            // Blocks for the new structures themselves, which lie behind all others.
            for index in start >> block_bits..=(end - 1) >> block_bits {
                if used.last().is_none_or(|&last| last < index) {
                    used.push(index);
                }
            }
            let entries = used.last().map_or(0, |last| last + 1);
            let table_len = entries.div_ceil(per_table_cluster);
            if table_len * header.cluster_bits().size() > REFCOUNT_TABLE_MAX {
                return None;
            }
            let table = start + used.len() as u64;
            if table + table_len <= end {
                return Some(Self { clusters: start..table + table_len, blocks: used, table });
            }
            end = table + table_len;
        }
    }

    /// Cluster of the block at this position of `blocks`.
    fn block(&self, position: usize) -> u64 {
        self.clusters.start + position as u64
    }

    /// Writes what the blocks say of the clusters of the window, and of the new structures behind the last.
    fn write_blocks<S: Storage>(
        &self,
        storage: &mut S,
        header: &Header,
        counts: &Counts,
        pen: &mut dyn Pen<S>,
    ) -> Result<(), Error> {
        let (order, block_bits) = (header.refcount_order(), header.refcount_block_bits());
        let cluster_len = header.cluster_bits().size();
        let window = counts.window();
        let mut bytes = vec![0; usize::try_from(cluster_len).unwrap_or(0)];
        for (position, &index) in self.blocks.iter().enumerate() {
            let first = index << block_bits;
            let last = first + ((1 << block_bits) - 1);
            let is_last_window = window.end == counts.clusters();
            if last < window.start || first >= window.end && !is_last_window {
                continue;
            }
            let offset = self.block(position) * cluster_len;
            if first < window.start {
                // Another window has begun it.
                storage.read_at(offset, &mut bytes)?;
            } else {
                bytes.fill(0);
            }
            for cluster in first.max(window.start)..=last.min(window.end.saturating_sub(1)) {
                set_count(&mut bytes, order, cluster - first, counts.get(cluster));
            }
            for cluster in first.max(self.clusters.start)..=last.min(self.clusters.end - 1) {
                set_count(&mut bytes, order, cluster - first, 1);
            }
            pen.write(storage, offset, &bytes)?;
        }
        Ok(())
    }

    /// Writes the table, a cluster at a time.
    fn write_table<S: Storage>(
        &self,
        storage: &mut S,
        header: &Header,
        pen: &mut dyn Pen<S>,
    ) -> Result<(), Error> {
        let cluster_len = header.cluster_bits().size();
        let per_cluster = usize::try_from(cluster_len / TABLE_ENTRY_LEN).unwrap_or(1);
        let mut blocks = self.blocks.iter().enumerate().peekable();
        let mut entries = vec![U64::ZERO; per_cluster];
        for (number, cluster) in (self.table..self.clusters.end).enumerate() {
            entries.fill(U64::ZERO);
            for (at, entry) in entries.iter_mut().enumerate() {
                let index = (number * per_cluster + at) as u64;
                if let Some((position, _)) = blocks.next_if(|(_, block)| **block == index) {
                    *entry = U64::new(self.block(position) * cluster_len);
                }
            }
            pen.write(storage, cluster * cluster_len, entries.as_bytes())?;
        }
        Ok(())
    }
}

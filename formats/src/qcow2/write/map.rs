//! Giving clusters of the disk places in the file. Section "Cluster mapping".

use super::super::entry::{COMPRESSED, COMPRESSED_SECTOR, COPIED, OFFSET_MASK, ZERO};
use super::pages::Kind;
use super::{Shape, Writer};
use crate::write::Place;
use crate::{Error, ErrorKind, FileIndex, StorageMut};

/// What a range of the disk is given a place for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum As {
    /// Data.
    Data,
    /// Space for data that may come.
    Reserve,
}

impl Shape {
    /// Whether data can be written where the entry says.
    fn is_writable(&self, descriptor: u64) -> bool {
        let has_cluster = descriptor & OFFSET_MASK != 0 || self.data_file;
        descriptor & COPIED != 0 && descriptor & COMPRESSED == 0 && has_cluster
    }

    /// Subclusters from byte `start` of a cluster up to `end`, as bits.
    pub(super) fn subclusters(&self, start: u64, end: u64) -> u64 {
        let (first, behind) = (start / self.subcluster(), end.div_ceil(self.subcluster()));
        ((1 << behind.min(32)) - 1) & !((1 << first.min(32)) - 1)
    }

    /// File offset and length in bytes of what a compressed descriptor refers to.
    pub(super) fn compressed(&self, descriptor: u64) -> (u64, u64) {
        let shift = self.sectors_shift();
        let offset = descriptor & ((1 << shift) - 1);
        let sectors = (descriptor & (COMPRESSED - 1)) >> shift;
        (offset, (sectors + 1) * COMPRESSED_SECTOR - offset % COMPRESSED_SECTOR)
    }

    /// Where the number of sectors begins in a compressed descriptor, in bits.
    pub(super) fn sectors_shift(&self) -> u32 {
        62 - (self.cluster_bits - 8)
    }
}

pub(super) fn corrupt(field: &'static str, message: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, field, message)
}

impl<S: StorageMut> Writer<S> {
    /// A place for the disk from `offset` up to `end`, or for as much of it as goes to one.
    pub(super) fn place(&mut self, offset: u64, end: u64, what: As) -> Result<Place, Error> {
        let bits = self.shape.cluster_bits;
        let cluster_len = self.shape.cluster();
        let (mut at, mut start, mut expected) = (offset, None, None);
        while at < end {
            let cluster = at >> bits;
            let slice_end = (cluster / self.shape.slice + 1) * self.shape.slice;
            let most = end.div_ceil(cluster_len).min(slice_end) - cluster;
            let entry = self.entry_for_writing(cluster)?;
            let first = self.space.pages.word(&mut self.storage, Kind::L2, entry)?;
            let writable = self.shape.is_writable(first);
            let same = self.count_same(entry, first, most)?;
            let (host, count) = match expected {
                _ if writable => (first & OFFSET_MASK, same),
                _ if self.shape.data_file => (cluster << bits, same),
                None => (self.space.allocate(&mut self.storage, same)?, same),
                Some(host) => (host, self.space.allocate_at(&mut self.storage, host, same)?),
            };
            if count == 0 || expected.is_some_and(|expected| expected != host) {
                break;
            }
            if writable {
                self.check_data(cluster, host, count)?;
            }
            let stop = end.min((cluster + count) << bits);
            self.link(entry, (at, stop), host, what)?;
            let written = (stop - (cluster << bits)).next_multiple_of(self.shape.subcluster());
            if !self.shape.data_file {
                self.end = self.end.max(host + written);
            }
            start = start.or(Some(host + at % cluster_len));
            expected = Some(host + (count << bits));
            at = stop;
        }
        let file = if self.shape.data_file { FileIndex::DATA_FILE } else { FileIndex::OWN };
        let start = start.ok_or_else(|| corrupt("L2 table", "No cluster could be allocated"))?;
        Ok(Place { file, offset: start, length: at - offset })
    }

    /// File offset of the entry of a cluster, in an L2 table that may be written to: one is made if there is none, or if it is
    /// a snapshot's, too.
    pub(super) fn entry_for_writing(&mut self, cluster: u64) -> Result<u64, Error> {
        let index = cluster >> self.shape.l2_bits();
        let within = (cluster % (1 << self.shape.l2_bits())) * self.shape.entry_len;
        if let Some(table) = self.table_at_hand(cluster) {
            return Ok(table + within);
        }
        let cluster_len = self.shape.cluster();
        let (old, copied) = self.l1_entry(index)?;
        let table = if old != 0 && copied {
            old
        } else {
            let table = self.space.allocate(&mut self.storage, 1)?;
            self.space.pages.begin(&mut self.storage, Kind::L2, table, cluster_len)?;
            if old != 0 {
                for word in (0..cluster_len).step_by(8) {
                    let entry = self.space.pages.word(&mut self.storage, Kind::L2, old + word)?;
                    self.space.pages.set_word(&mut self.storage, Kind::L2, table + word, entry)?;
                }
                self.space.free(&mut self.storage, old, cluster_len)?;
            }
            let at = self.l1_offset + index * 8;
            self.space.pages.set_word(&mut self.storage, Kind::L1, at, table | COPIED)?;
            self.end = self.end.max(table + cluster_len);
            table
        };
        self.table = Some((index, table));
        Ok(table + within)
    }

    /// File offset of the L2 table that has the entry of a cluster, if it is the one that was written to last.
    pub(super) fn table_at_hand(&self, cluster: u64) -> Option<u64> {
        let index = cluster >> self.shape.l2_bits();
        self.table.filter(|table| table.0 == index).map(|(_, table)| table)
    }

    /// File offset of the L2 table of this index, 0 if there is none, and whether it is this image's alone.
    pub(super) fn l1_entry(&mut self, index: u64) -> Result<(u64, bool), Error> {
        if index >= self.l1_entries {
            return Err(corrupt("l1_size", "L1 table is too small"));
        }
        let entry = self.space.pages.word(&mut self.storage, Kind::L1, self.l1_offset + index * 8)?;
        let offset = entry & OFFSET_MASK;
        if offset != 0 {
            self.check_table(offset)?;
        }
        Ok((offset, entry & COPIED != 0))
    }

    /// How many of `most` clusters, at least one, from that of the entry at `entry` on can be handled as the first of them: all can be written
    /// to and lie in a row, or none can.
    fn count_same(&mut self, entry: u64, first: u64, most: u64) -> Result<u64, Error> {
        let writable = self.shape.is_writable(first);
        let (mut count, mut host) = (1, first & OFFSET_MASK);
        while count < most {
            let at = entry + count * self.shape.entry_len;
            let next = self.space.pages.word(&mut self.storage, Kind::L2, at)?;
            host += self.shape.cluster();
            let goes_on =
                self.shape.is_writable(next) == writable && (!writable || next & OFFSET_MASK == host);
            if !goes_on {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// Has the entries from the one at `entry` on say that the disk in this range is at the file offset `host`.
    pub(super) fn link(
        &mut self,
        mut entry: u64,
        (start, stop): (u64, u64),
        mut host: u64,
        what: As,
    ) -> Result<(), Error> {
        let cluster_len = self.shape.cluster();
        let mut at = start;
        while at < stop {
            let skip = at % cluster_len;
            let end = stop.min(at - skip + cluster_len);
            let old = self.space.pages.word(&mut self.storage, Kind::L2, entry)?;
            let new = host | COPIED;
            let writable = self.shape.is_writable(old);
            if self.shape.is_extended() {
                let whole = skip == 0 && (end.is_multiple_of(cluster_len) || end == self.shape.size);
                if !writable && old & (OFFSET_MASK | COMPRESSED) != 0 && !whole {
                    let message = "A part of a cluster that is shared or compressed cannot be written to";
                    return Err(Error::new(ErrorKind::Unsupported, "range", message));
                }
                let bitmap = self.space.pages.word(&mut self.storage, Kind::L2, entry + 8)?;
                let data = match what {
                    As::Data => self.shape.subclusters(skip, end - (at - skip)),
                    As::Reserve => 0,
                };
                let kept = if whole { 0 } else { bitmap };
                let bits = (kept & !(data << 32)) | data;
                if bits != bitmap {
                    self.space.pages.set_word(&mut self.storage, Kind::L2, entry + 8, bits)?;
                }
            }
            if old != new {
                self.space.pages.set_word(&mut self.storage, Kind::L2, entry, new)?;
            }
            if !writable && old != 0 {
                self.free_old(old)?;
            }
            (entry, host, at) = (entry + self.shape.entry_len, host + cluster_len, end);
        }
        Ok(())
    }

    /// Gives back what an entry referred to that is no more.
    pub(super) fn free_old(&mut self, descriptor: u64) -> Result<(), Error> {
        let (offset, length) = match descriptor {
            _ if descriptor & COMPRESSED != 0 => self.shape.compressed(descriptor),
            _ if self.shape.data_file => return Ok(()),
            _ => (descriptor & OFFSET_MASK, self.shape.cluster()),
        };
        if descriptor & (OFFSET_MASK | COMPRESSED) == 0 || descriptor == ZERO {
            return Ok(());
        }
        if descriptor & COMPRESSED == 0 && !offset.is_multiple_of(length) {
            return Err(corrupt("L2 table", "Cluster offset unaligned"));
        }
        self.space.free(&mut self.storage, offset, length)
    }

    /// What must hold before a cluster is written to that is part of a table.
    pub(super) fn check_table(&self, offset: u64) -> Result<(), Error> {
        if !offset.is_multiple_of(self.shape.cluster()) {
            return Err(corrupt("L1 table", "Table offset unaligned"));
        }
        self.check_clear(offset, 1)
    }

    /// What must hold before data is written where an entry says.
    fn check_data(&self, cluster: u64, offset: u64, count: u64) -> Result<(), Error> {
        if self.shape.data_file && offset != cluster << self.shape.cluster_bits {
            let message = "External data file host cluster offset does not match guest cluster offset";
            return Err(corrupt("L2 table", message));
        }
        if !offset.is_multiple_of(self.shape.cluster()) {
            return Err(corrupt("L2 table", "Cluster allocation offset unaligned"));
        }
        if self.shape.data_file { Ok(()) } else { self.check_clear(offset, count) }
    }

    /// That clusters of the file are in the file, and neither header nor tables.
    fn check_clear(&self, offset: u64, count: u64) -> Result<(), Error> {
        let end = offset.saturating_add(count << self.shape.cluster_bits);
        let clusters = offset >> self.shape.cluster_bits..end.div_ceil(self.shape.cluster());
        let l1_end = self.l1_offset + self.l1_entries * 8;
        let over_l1 = offset < l1_end && self.l1_offset < end;
        if offset < self.shape.cluster() || over_l1 || self.space.is_reserved(&clusters) {
            return Err(corrupt("L2 table", "Cluster overlaps metadata"));
        }
        let file_end = self.end.max(self.storage.len()).next_multiple_of(self.shape.cluster());
        if end > file_end {
            return Err(corrupt("L2 table", "Cluster lies beyond the end of the file"));
        }
        Ok(())
    }
}

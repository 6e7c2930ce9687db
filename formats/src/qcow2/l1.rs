//! An L1 table, the active one or a snapshot's, read through a window: which L2 table covers a part of the virtual disk.

use alloc::format;
use alloc::string::String;

use zerocopy::big_endian::U64;

use super::entry::OFFSET_MASK;
use super::header::{Header, TABLE_ENTRY_LEN};
use super::hex;
use crate::table::Table;
use crate::{Error, ErrorKind, Storage};

/// Entries in memory at a time: 64 KiB of a table that may be 32 MiB long.
const WINDOW: u64 = 8192;

/// Where an L1 table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TablePlace {
    /// What messages call it.
    pub(super) name: &'static str,
    /// The field that says where it is.
    pub(super) field: &'static str,
    /// File offset in bytes, a multiple of the cluster size.
    pub(super) offset: u64,
    /// Number of entries; the end of the table is below 2^63.
    pub(super) entries: u32,
}

impl TablePlace {
    /// The table that the header has.
    pub(super) fn active(header: &Header) -> Self {
        let (entries, offset) = header.l1_table();
        Self { name: "Active L1 table", field: "l1_table_offset", offset, entries }
    }

    /// File offsets from its first byte up to behind its last.
    fn range(&self) -> core::ops::Range<u64> {
        self.offset..self.offset.saturating_add(u64::from(self.entries) * TABLE_ENTRY_LEN)
    }
}

/// The entries that the virtual disk uses.
#[derive(Debug)]
pub(super) struct L1 {
    place: TablePlace,
    table: Table<U64>,
}

fn corrupt(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, field, message)
}

/// Whether an entry points to a table.
fn is_used(entry: u64) -> bool {
    entry & OFFSET_MASK != 0
}

impl L1 {
    pub(super) fn new(header: &Header, place: TablePlace) -> Self {
        let used = header.l1_used().min(place.entries.into());
        Self { place, table: Table::new(place.offset, used, WINDOW) }
    }

    /// Number of entries; a snapshot's table may have fewer than the disk would use.
    pub(super) fn entries(&self) -> u64 {
        self.table.entries()
    }

    /// File offset of the L2 table that entry `index` points to; 0 if there is none.
    pub(super) fn get<S: Storage>(&mut self, storage: &mut S, index: u64) -> Result<u64, Error> {
        Ok(self.table.from(storage, index)?.first().map_or(0, |entry| entry.get() & OFFSET_MASK))
    }

    /// Index of the first entry at or after `index` that points to a table, or the number of entries.
    pub(super) fn skip_empty<S: Storage>(&mut self, storage: &mut S, index: u64) -> Result<u64, Error> {
        Ok(self.table.find(storage, index, is_used)?)
    }

    /// What must hold before the table is followed: that it and the refcount table lie inside the file, apart from
    /// each other and from the header, and that there can be as many L2 tables as it points to. Two entries never
    /// share an L2 table, so a file of n clusters has at most n; this is what bounds a walk by the file's length.
    pub(super) fn check<S: Storage>(&mut self, storage: &mut S, header: &Header) -> Result<(), Error> {
        let file_len = storage.len();
        let TablePlace { name, field, offset, .. } = self.place;
        let end = self.table.end();
        if end > file_len {
            return Err(corrupt(field, format!("{name} lies beyond the end of the file")));
        }
        let (refcount_len, refcount_offset) = header.refcount_table();
        let refcount_end = refcount_offset.saturating_add(refcount_len);
        if refcount_end > file_len {
            let message = "Reference count table lies beyond the end of the file";
            return Err(corrupt("refcount_table_offset", message));
        }
        if offset == 0 {
            return Err(corrupt(field, format!("{name} overlaps the header")));
        }
        if refcount_offset == 0 {
            return Err(corrupt("refcount_table_offset", "Reference count table overlaps the header"));
        }
        if offset < refcount_end && refcount_offset < end {
            return Err(corrupt(field, format!("{name} overlaps the reference count table")));
        }
        if self.table.has_more_than(storage, file_len / header.cluster_bits().size(), is_used)? {
            return Err(corrupt("L1 table", "L1 table has more entries than the file has clusters"));
        }
        Ok(())
    }

    /// There are more L2 tables than the file stores.
    pub(super) fn too_many_l2() -> Error {
        corrupt("L1 table", "L2 tables are used more than once")
    }

    /// What must hold before the L2 table at `table`, that entry `index` points to, is followed.
    pub(super) fn check_l2(
        &self,
        header: &Header,
        file_len: u64,
        index: u64,
        table: u64,
    ) -> Result<(), Error> {
        let cluster_bits = header.cluster_bits();
        if !cluster_bits.aligned(table) {
            let (table, index) = (hex(table), hex(index));
            let message = format!("L2 table offset {table} unaligned (L1 index: {index})");
            return Err(corrupt("L1 table", message));
        }
        let place = |what| {
            let (table, index) = (hex(table), hex(index));
            format!("L2 table offset {table} {what} (L1 index: {index})")
        };
        if table.saturating_add(cluster_bits.size()) > file_len {
            return Err(corrupt("L1 table", place("beyond the end of the file")));
        }
        let tables = [self.place, TablePlace::active(header)];
        if tables.iter().any(|place| place.range().contains(&table)) {
            return Err(corrupt("L1 table", place("inside the L1 table")));
        }
        let (refcount_len, refcount_offset) = header.refcount_table();
        if (refcount_offset..refcount_offset.saturating_add(refcount_len)).contains(&table) {
            return Err(corrupt("L1 table", place("inside the reference count table")));
        }
        Ok(())
    }
}

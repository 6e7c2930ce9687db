//! The active L1 table, read through a window: which L2 table covers a part of the virtual disk.

use alloc::format;
use alloc::string::String;

use zerocopy::big_endian::U64;

use super::entry::OFFSET_MASK;
use super::header::{Header, TABLE_ENTRY_LEN};
use super::hex;
use crate::window::Window;
use crate::{Error, ErrorKind, FileIndex, Storage};

/// Bytes in memory at a time, of a table that may be 32 MiB long.
const WINDOW_LEN: usize = 64 << 10;

/// The entries that the virtual disk uses.
#[derive(Debug)]
pub(super) struct L1 {
    /// File offset of the table in bytes.
    offset: u64,
    /// Number of entries.
    used: u64,
    window: Window<U64>,
}

fn corrupt(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, field, message)
}

impl L1 {
    pub(super) fn new(header: &Header) -> Self {
        Self { offset: header.l1_table().1, used: header.l1_used(), window: Window::new(WINDOW_LEN) }
    }

    /// Number of entries.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// File offset of the L2 table that entry `index` points to; 0 if there is none.
    pub(super) fn get<S: Storage>(&mut self, storage: &mut S, index: u64) -> Result<u64, Error> {
        Ok(self.from(storage, index)?.first().map_or(0, |entry| entry.get() & OFFSET_MASK))
    }

    /// Index of the first entry at or after `index` that points to a table, or the number of entries.
    pub(super) fn skip_empty<S: Storage>(&mut self, storage: &mut S, mut index: u64) -> Result<u64, Error> {
        while index < self.used {
            let entries = self.from(storage, index)?;
            match entries.iter().position(|entry| entry.get() & OFFSET_MASK != 0) {
                Some(position) => return Ok(index + position as u64),
                None => index += entries.len() as u64,
            }
        }
        Ok(self.used)
    }

    /// The entries from `index` to the end of the window; at least one if `index` is in the table.
    fn from<S: Storage>(&mut self, storage: &mut S, index: u64) -> Result<&[U64], Error> {
        let count = self.used.saturating_sub(index);
        if count == 0 {
            return Ok(&[]);
        }
        let offset = self.offset + index * TABLE_ENTRY_LEN;
        Ok(self.window.entries(storage, FileIndex::OWN, offset, count)?)
    }

    /// What must hold before the table is followed: that it and the refcount table lie inside the file, apart from
    /// each other and from the header, and that there can be as many L2 tables as it points to. Two entries never
    /// share an L2 table, so a file of n clusters has at most n; this is what bounds a walk by the file's length.
    pub(super) fn check<S: Storage>(&mut self, storage: &mut S, header: &Header) -> Result<(), Error> {
        let file_len = storage.len();
        let end = self.offset.saturating_add(self.used * TABLE_ENTRY_LEN);
        if end > file_len {
            return Err(corrupt("l1_table_offset", "Active L1 table lies beyond the end of the file"));
        }
        let (refcount_len, refcount_offset) = header.refcount_table();
        let refcount_end = refcount_offset.saturating_add(refcount_len);
        if refcount_end > file_len {
            let message = "Reference count table lies beyond the end of the file";
            return Err(corrupt("refcount_table_offset", message));
        }
        if self.offset == 0 {
            return Err(corrupt("l1_table_offset", "Active L1 table overlaps the header"));
        }
        if refcount_offset == 0 {
            return Err(corrupt("refcount_table_offset", "Reference count table overlaps the header"));
        }
        if self.offset < refcount_end && refcount_offset < end {
            return Err(corrupt("l1_table_offset", "Active L1 table overlaps the reference count table"));
        }
        self.check_count(storage, file_len / header.cluster_bits().size())
    }

    fn check_count<S: Storage>(&mut self, storage: &mut S, file_clusters: u64) -> Result<(), Error> {
        if self.used <= file_clusters {
            return Ok(());
        }
        let (mut index, mut tables) = (0, 0);
        while index < self.used {
            let entries = self.from(storage, index)?;
            tables += entries.iter().filter(|entry| entry.get() & OFFSET_MASK != 0).count() as u64;
            index += entries.len() as u64;
            if tables > file_clusters {
                return Err(corrupt("L1 table", "L1 table has more entries than the file has clusters"));
            }
        }
        Ok(())
    }

    /// What must hold before the L2 table at `table`, that entry `index` points to, is followed.
    pub(super) fn check_l2(header: &Header, file_len: u64, index: u64, table: u64) -> Result<(), Error> {
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
        let (l1_size, l1_offset) = header.l1_table();
        let l1_end = l1_offset.saturating_add(u64::from(l1_size) * TABLE_ENTRY_LEN);
        if (l1_offset..l1_end).contains(&table) {
            return Err(corrupt("L1 table", place("inside the L1 table")));
        }
        let (refcount_len, refcount_offset) = header.refcount_table();
        if (refcount_offset..refcount_offset.saturating_add(refcount_len)).contains(&table) {
            return Err(corrupt("L1 table", place("inside the reference count table")));
        }
        Ok(())
    }
}

//! A table of tables: the first level says where the tables of the second level are, these where the clusters are.

use alloc::format;

use crate::run::{Place, run};
use crate::scan::{Scan, Verdict};
use crate::table::{Entry, Table};
use crate::{Error, ErrorKind, Extent, ExtentKind, Storage};

/// Bytes of each level in memory at a time.
const WINDOW_LEN: u64 = 64 << 10;
/// Length of an entry in bytes.
const ENTRY_LEN: u64 = 8;

/// What the tables of a format look like.
pub(crate) trait Scheme {
    /// An entry of either level, 8 bytes long.
    type Entry: Entry;

    /// Whether there may be a table of the second level at this file offset, which is not 0.
    fn is_table(&self, offset: u64) -> bool;

    /// What an entry of the second level says.
    fn cluster(&self, entry: u64) -> Place;
}

/// The sizes of both levels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    /// File offset of the table of the first level in bytes.
    pub(crate) l1_offset: u64,
    /// Its entries.
    pub(crate) l1_entries: u64,
    /// log2 of the entries of a table of the second level.
    pub(crate) l2_bits: u32,
    /// log2 of the bytes of a cluster.
    pub(crate) cluster_bits: u32,
    /// Bytes of the disk.
    pub(crate) disk_len: u64,
}

impl Geometry {
    /// log2 of the bytes of the disk that an entry of the first level covers, below 64.
    fn coverage_bits(&self) -> u32 {
        self.l2_bits + self.cluster_bits
    }
}

/// The walk over both levels: at any time one table of the second level is at hand.
#[derive(Debug)]
pub(crate) struct TwoLevel<C: Scheme> {
    scheme: C,
    geometry: Geometry,
    l1: Table<C::Entry>,
    l2: Table<C::Entry>,
    /// Whether the first level was found fit to be followed.
    checked: bool,
    /// The tables that were looked through.
    scan: Scan,
    /// L1 index of the table at hand.
    index: Option<u64>,
    /// The last run found. Whoever follows several images at once asks for it piece by piece.
    last: Option<Extent>,
}

fn corrupt(message: alloc::string::String, field: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, field, message)
}

impl<C: Scheme> TwoLevel<C> {
    /// `geometry` covers the disk.
    pub(crate) fn new(geometry: Geometry, scheme: C) -> Self {
        let window = WINDOW_LEN / ENTRY_LEN;
        let used = (geometry.disk_len >> geometry.coverage_bits())
            + u64::from(geometry.disk_len & ((1 << geometry.coverage_bits()) - 1) != 0);
        let l1 = Table::new(geometry.l1_offset, used.min(geometry.l1_entries), window);
        let l2 = Table::new(0, 1 << geometry.l2_bits, window);
        Self { scheme, geometry, l1, l2, checked: false, scan: Scan::default(), index: None, last: None }
    }

    /// Length of a cluster in bytes.
    pub(crate) fn cluster_len(&self) -> u64 {
        1 << self.geometry.cluster_bits
    }

    /// Bytes of the disk that a table of the second level covers.
    pub(crate) fn table_coverage(&self) -> u64 {
        1 << self.geometry.coverage_bits()
    }

    /// Each entry of the first level is a step or leads to a table of its own, each entry of which is a step.
    pub(crate) fn max_extents(&self, file_len: u64) -> u64 {
        self.max_tables(file_len).saturating_mul(1 << self.geometry.l2_bits).saturating_add(self.l1.entries())
    }

    /// Two entries never share a table, so a file holds no more than this; it is what bounds a walk by the length of
    /// the file.
    fn max_tables(&self, file_len: u64) -> u64 {
        file_len / (ENTRY_LEN << self.geometry.l2_bits)
    }

    /// `offset` is below the length of the disk.
    pub(crate) fn extent_at<S: Storage>(&mut self, storage: &mut S, offset: u64) -> Result<Extent, Error> {
        if let Some(extent) = self.last.and_then(|last| last.part_from(offset)) {
            return Ok(extent);
        }
        let extent = self.mapped_at(storage, offset)?;
        self.last = Some(extent);
        Ok(extent)
    }

    fn mapped_at<S: Storage>(&mut self, storage: &mut S, offset: u64) -> Result<Extent, Error> {
        let Geometry { cluster_bits, disk_len, .. } = self.geometry;
        let coverage_bits = self.geometry.coverage_bits();
        let end_of = |index: u64| index.saturating_mul(1 << coverage_bits).min(disk_len);
        let index = offset >> coverage_bits;
        if self.index != Some(index) {
            self.check(storage)?;
            let table = self.l1.from(storage, index)?.first().map_or(0, |entry| entry.value());
            if table == 0 {
                let end = end_of(self.l1.find(storage, index, |entry| entry != 0)?);
                return Ok(Extent::own(offset, end - offset, ExtentKind::Unallocated { offset: None }));
            }
            self.check_table(storage.len(), index, table)?;
            match self.scan.table(storage, index, table, ENTRY_LEN << self.geometry.l2_bits)? {
                Verdict::Read => {}
                Verdict::Hole => {
                    let length = end_of(index + 1) - offset;
                    return Ok(Extent::own(offset, length, ExtentKind::Unallocated { offset: None }));
                }
                Verdict::TooMany => {
                    return Err(corrupt("L2 tables are used more than once".into(), "L1 table"));
                }
            }
            self.l2.move_to(table);
            self.index = Some(index);
        }
        let entry = (offset >> cluster_bits) & ((1 << self.geometry.l2_bits) - 1);
        let entries = self.l2.from(storage, entry)?;
        let (place, length) =
            run(entries.iter().map(|entry| self.scheme.cluster(entry.value())), 1 << cluster_bits);
        let within = offset & ((1 << cluster_bits) - 1);
        let length = (length - within).min(end_of(index + 1) - offset);
        place.extent(offset, within, length).ok_or_else(|| {
            corrupt(format!("Invalid cluster entry (L1 index: {index}, L2 index: {entry})"), "L2 table")
        })
    }

    /// What must hold before the first level is followed.
    fn check<S: Storage>(&mut self, storage: &mut S) -> Result<(), Error> {
        if self.checked {
            return Ok(());
        }
        if self.l1.end() > storage.len() {
            return Err(corrupt("L1 table lies beyond the end of the file".into(), "l1_table_offset"));
        }
        let max = self.max_tables(storage.len());
        if self.l1.has_more_than(storage, max, |entry| entry != 0)? {
            return Err(corrupt("L1 table has more entries than the file has room for".into(), "L1 table"));
        }
        self.checked = true;
        Ok(())
    }

    fn check_table(&self, file_len: u64, index: u64, table: u64) -> Result<(), Error> {
        let place =
            |what| corrupt(format!("L2 table offset {table:#x} {what} (L1 index: {index})"), "L1 table");
        if !self.scheme.is_table(table) {
            return Err(place("is invalid"));
        }
        if table.checked_add(ENTRY_LEN << self.geometry.l2_bits).is_none_or(|end| end > file_len) {
            return Err(place("beyond the end of the file"));
        }
        Ok(())
    }
}

//! All references that the metadata makes to clusters of the file, in `qemu-img`'s order.

use zerocopy::big_endian::U64;

use super::counts::Counts;
use super::l2::{Tables, mark};
use super::ledger::Ledger;
use super::log::Log;
use super::pen::Pen;
use super::snapshots::{SnapshotTable, Words};
use crate::check::{Release, Repair};
use crate::luks::Area;
use crate::qcow2::entry::OFFSET_MASK;
use crate::qcow2::extensions::BitmapDirectory;
use crate::qcow2::header::Header;
use crate::table::Table;
use crate::{Error, ErrorKind, Storage, StorageError};

/// Bits of an L1 entry that must not be set.
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Since then they are looked at.
const STRICT: Release = Release { major: 6, minor: 2 };
/// Bits of an entry of a bitmap table that must not be set.
const BITMAP_RESERVED: u64 = 0xff00_0000_0000_01fe;
/// Bit of an entry of a bitmap table without an offset: all bits are set.
const BITMAP_ALL_ONES: u64 = 1;
/// Entries of an L1 or bitmap table in memory at a time.
const WINDOW: u64 = 8192;
/// Largest L1 table in entries: QEMU's limit.
pub(super) const L1_ENTRIES_MAX: u32 = (32 << 20) / 8;

/// What refers to clusters.
#[derive(Clone)]
pub(super) struct References<'a> {
    pub(super) header: &'a Header,
    pub(super) release: Release,
    pub(super) snapshots: &'a SnapshotTable,
    /// File offset and number of entries of each bitmap's table.
    pub(super) bitmaps: &'a [(u64, u32)],
    pub(super) bitmap_directory: Option<&'a BitmapDirectory>,
    pub(super) luks: Option<Area>,
    /// Length of the file in bytes, if it is to be longer than it is.
    pub(super) file_len: u64,
    /// Whether the refcount table counts.
    pub(super) with_refcount_table: bool,
    /// A snapshot table that is to be: file offset and length in bytes.
    pub(super) next_snapshots: Option<(u64, u64)>,
}

impl References<'_> {
    /// Counts all references to clusters of the window but those of the refcount table to its blocks.
    pub(super) fn count<S: Storage>(
        &self,
        storage: &mut S,
        counts: &mut Counts,
        pen: &mut dyn Pen<S>,
        log: &mut Log<'_, '_>,
    ) -> Result<(), Error> {
        let header = self.header;
        let ledger = &mut Ledger::new(header, storage.len().max(self.file_len), counts);
        ledger.add(0, header.cluster_bits().size(), 0, log);

        let mut tables = Tables::new(header, self.release);
        let (l1_size, l1_offset) = header.l1_table();
        self.l1(storage, ledger, pen, &mut tables, (l1_offset, l1_size, true), log)?;
        self.snapshots(storage, ledger, pen, &mut tables, log)?;
        ledger.add(self.snapshots.offset, self.snapshots.length, 0, log);
        if let Some((offset, length)) = self.next_snapshots {
            ledger.add(offset, length, 0, log);
        }

        let (refcount_len, refcount_offset) = header.refcount_table();
        if self.with_refcount_table {
            ledger.add(refcount_offset, refcount_len, 0, log);
        }
        if let Some(area) = self.luks {
            ledger.add(area.offset, area.length, 0, log);
        }
        self.bitmaps(storage, ledger, log)
    }

    /// An L1 table, the active one or not, by its file offset and its number of entries, and what it leads to.
    fn l1<S: Storage>(
        &self,
        storage: &mut S,
        ledger: &mut Ledger<'_>,
        pen: &mut dyn Pen<S>,
        tables: &mut Tables,
        (offset, size, active): (u64, u32, bool),
        log: &mut Log<'_, '_>,
    ) -> Result<(), Error> {
        let cluster_bits = self.header.cluster_bits();
        let length = u64::from(size) * size_of::<u64>() as u64;
        ledger.add(offset, length, 0, log);
        if length != 0 && offset.saturating_add(length) > i64::MAX as u64 {
            log.tell(format_args!("ERROR: I/O error in check_refcounts_l1"));
            return Err(StorageError.into());
        }
        let mut table = Table::<U64>::new(offset, size.into(), WINDOW);
        let mut index = 0;
        while index < table.entries() {
            let entry = table.from(storage, index)?.first().map_or(0, |entry| entry.get());
            index += 1;
            if entry == 0 {
                continue;
            }
            if entry & L1_RESERVED != 0 && self.release >= STRICT {
                log.corruption(format_args!("ERROR found L1 entry with reserved bits set: {entry:x}"));
            }
            let l2 = entry & OFFSET_MASK;
            let mark = if l2 == 0 { 0 } else { mark(active, entry) };
            ledger.add(l2, cluster_bits.size(), mark, log);
            if !cluster_bits.aligned(l2) {
                log.corruption(format_args!(
                    "ERROR l2_offset={l2:x}: Table is not cluster aligned; L1 entry corrupted"
                ));
                if pen.repair() == Repair::All {
                    continue;
                }
            }
            tables.count(storage, ledger, pen, (l2, active), log)?;
        }
        Ok(())
    }

    fn snapshots<S: Storage>(
        &self,
        storage: &mut S,
        ledger: &mut Ledger<'_>,
        pen: &mut dyn Pen<S>,
        tables: &mut Tables,
        log: &mut Log<'_, '_>,
    ) -> Result<(), Error> {
        let places = &self.snapshots.places;
        if self.header.has_data_file() && !places.is_empty() {
            log.corruption(format_args!("ERROR {} snapshots in image with data file", places.len()));
            return Ok(());
        }
        for place in places {
            let (offset, size) = (place.l1_offset, place.l1_size);
            if !self.header.cluster_bits().aligned(offset) {
                let Words { id, name } = place.words(storage)?;
                log.corruption(format_args!(
                    "ERROR snapshot {id} ({name}) l1_offset={offset:#x}: L1 table is not cluster aligned; snapshot table entry corrupted"
                ));
            } else if size > L1_ENTRIES_MAX {
                let Words { id, name } = place.words(storage)?;
                log.corruption(format_args!(
                    "ERROR snapshot {id} ({name}) l1_size={size:#x}: L1 table is too large; snapshot table entry corrupted"
                ));
            } else {
                self.l1(storage, ledger, pen, tables, (offset, size, false), log)?;
            }
        }
        Ok(())
    }

    fn bitmaps<S: Storage>(
        &self,
        storage: &mut S,
        ledger: &mut Ledger<'_>,
        log: &mut Log<'_, '_>,
    ) -> Result<(), Error> {
        let Some(directory) = self.bitmap_directory else { return Ok(()) };
        ledger.add(directory.offset, directory.length, 0, log);
        let cluster_bits = self.header.cluster_bits();
        for &(offset, entries) in self.bitmaps {
            ledger.add(offset, u64::from(entries) * size_of::<u64>() as u64, 0, log);
            let mut table = Table::<U64>::new(offset, entries.into(), WINDOW);
            for index in 0..table.entries() {
                let entry = table.from(storage, index)?.first().map_or(0, |entry| entry.get());
                let offset = entry & OFFSET_MASK;
                let flagged = offset != 0 && entry & BITMAP_ALL_ONES != 0;
                if entry & BITMAP_RESERVED != 0 || flagged || !cluster_bits.aligned(offset) {
                    return Err(Error::new(ErrorKind::Corrupt, "bitmap table", "Invalid argument"));
                }
                if offset != 0 {
                    ledger.add(offset, cluster_bits.size(), 0, log);
                }
            }
        }
        Ok(())
    }
}

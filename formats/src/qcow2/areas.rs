//! Where a qcow2 image has its metadata. Bitmaps are left out: nothing that is on the disk depends on them.

use zerocopy::big_endian::U64;

use super::entry::OFFSET_MASK;
use super::header::{Header, TABLE_ENTRY_LEN};
use super::snapshots;
use crate::area::{Area, Visit, visit_tables};
use crate::reader::Reader;
use crate::table::Table;
use crate::{Error, Storage};

/// Bits 9 to 63 of a refcount table entry. Section "Host cluster management".
const REFCOUNT_OFFSET_MASK: u64 = !0x1ff;
/// Entries of a table in memory at a time.
const WINDOW: u64 = 8192;

/// Visits header, reference counts, the active mapping and the tables of snapshots; not what the mappings of snapshots
/// lead to, which they share with the active one.
pub(super) fn visit<S: Storage>(
    storage: &mut S,
    header: &Header,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let cluster = header.cluster_bits().size();
    let mut one = |name, offset, length| Area::new(name, offset, length).into_iter().for_each(&mut *visit);
    one("header", 0, cluster);
    let (refcount_len, refcount_offset) = header.refcount_table();
    one("refcount table", refcount_offset, refcount_len);
    let (l1_entries, l1_offset) = header.l1_table();
    one("L1 table", l1_offset, u64::from(l1_entries) * TABLE_ENTRY_LEN);
    snapshots::areas(&mut Reader::new(storage), header, &mut one)?;

    let mut table = Table::<U64>::new(refcount_offset, refcount_len / TABLE_ENTRY_LEN, WINDOW);
    visit_tables(
        storage,
        &mut table,
        ("refcount block", cluster),
        |entry| entry & REFCOUNT_OFFSET_MASK,
        visit,
    )?;
    let mut table = Table::<U64>::new(l1_offset, l1_entries.into(), WINDOW);
    visit_tables(storage, &mut table, ("L2 table", cluster), |entry| entry & OFFSET_MASK, visit)
}

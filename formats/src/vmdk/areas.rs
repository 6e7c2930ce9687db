//! Where a sparse file has its metadata. The second copies of directory and tables are left out: nobody reads them here.

use zerocopy::little_endian::U32;

use super::SECTOR;
use super::sparse::{Entries, Sparse};
use crate::area::{Area, Visit, visit_tables};
use crate::table::Table;
use crate::{Error, Storage};

/// Entries of a directory in memory at a time.
const WINDOW: u64 = 8192;

/// Visits header, descriptor, grain directory and grain tables.
pub(super) fn visit<S: Storage>(
    storage: &mut S,
    sparse: &Sparse,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let Entries::Sectors { .. } = sparse.entries else { return Ok(()) };
    let (descriptor, descriptor_len) = sparse.descriptor;
    let directory_len = sparse.directory_entries * sparse.entries.length();
    for (name, offset, length) in [
        ("header", 0, SECTOR),
        ("descriptor", descriptor, descriptor_len),
        ("grain directory", sparse.directory, directory_len),
    ] {
        Area::new(name, offset, length).into_iter().for_each(&mut *visit);
    }
    let mut table = Table::<U32>::new(sparse.directory, sparse.directory_entries, WINDOW);
    let tables = ("grain table", sparse.table_len());
    visit_tables(storage, &mut table, tables, |entry| entry * SECTOR, visit)
}

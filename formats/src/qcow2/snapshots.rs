//! Section "Snapshots": that the table can be walked within its limits. What the snapshots are is not kept.

use alloc::format;

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::header::Header;
use crate::reader::Reader;
use crate::{Error, ErrorKind, Storage};

/// Longest extra data of an entry in bytes: QEMU's limit.
const EXTRA_DATA_MAX: u32 = 1024;
/// Largest snapshot table in bytes: QEMU's limit.
const TABLE_MAX: u64 = 1024 * 65536;

/// The fixed part of an entry; extra data, id and name follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    l1_table_offset: U64,
    l1_size: U32,
    id_len: U16,
    name_len: U16,
    date_seconds: U32,
    date_nanoseconds: U32,
    vm_clock: U64,
    vm_state_size: U32,
    extra_data_len: U32,
}

/// Walks the snapshot table.
pub(super) fn check<S: Storage>(reader: &mut Reader<'_, S>, header: &Header) -> Result<(), Error> {
    let (count, start) = header.snapshots();
    reader.seek(start);
    for index in 0..count {
        reader.align_to_8(start);
        let entry: Entry = reader.record()?;
        let extra = entry.extra_data_len.get();
        if extra > EXTRA_DATA_MAX {
            let message = format!("Too much extra metadata in snapshot table entry {index}");
            return Err(Error::new(ErrorKind::Limit, "snapshot table", message));
        }
        reader.skip(u64::from(extra) + u64::from(entry.id_len.get()) + u64::from(entry.name_len.get()));
        if reader.position() - start > TABLE_MAX {
            return Err(Error::new(ErrorKind::Limit, "snapshot table", "Snapshot table is too big"));
        }
        if reader.position() > reader.file_len() {
            let message = format!("Snapshot table entry {index} lies beyond the end of the file");
            return Err(Error::new(ErrorKind::Corrupt, "snapshot table", message));
        }
    }
    Ok(())
}

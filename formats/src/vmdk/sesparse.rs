//! `SESPARSE` files of ESXi. The format is not published: what QEMU takes is taken, anything else refused.

use alloc::format;
use alloc::string::String;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SECTOR;
use super::sparse::{Entries, Layout, Sparse, table_offset};
use crate::reader::Reader;
use crate::{Error, ErrorKind, Storage};

const CONST_MAGIC: u64 = 0xcafe_babe;
const VOLATILE_MAGIC: u64 = 0xcafe_cafe;
const VERSION: u64 = 0x2_0000_0001;
/// Sectors of a grain.
const GRAIN_SECTORS: u64 = 8;
/// Sectors of a grain table.
const TABLE_SECTORS: u64 = 64;
/// Length of an entry in bytes.
const ENTRY_LEN: u64 = 8;

/// The header that is never written again.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ConstHeader {
    magic: U64,
    version: U64,
    capacity: U64,
    grain_size: U64,
    grain_table_size: U64,
    flags: U64,
    reserved: [U64; 4],
    volatile_header_offset: U64,
    volatile_header_size: U64,
    journal_header_offset: U64,
    journal_header_size: U64,
    journal_offset: U64,
    journal_size: U64,
    grain_dir_offset: U64,
    grain_dir_size: U64,
    grain_tables_offset: U64,
    grain_tables_size: U64,
    free_bitmap_offset: U64,
    free_bitmap_size: U64,
    backmap_offset: U64,
    backmap_size: U64,
    grains_offset: U64,
    grains_size: U64,
    padding: [u8; 304],
}

/// The header that says whether the journal is to be replayed.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct VolatileHeader {
    magic: U64,
    free_gt_number: U64,
    next_txn_seq_number: U64,
    replay_journal: U64,
    padding: [u8; 480],
}

fn unsupported(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, field, message)
}

/// Reads and checks both headers.
pub(super) fn open<S: Storage>(reader: &mut Reader<'_, S>) -> Result<Sparse, Error> {
    reader.seek(0);
    let header: ConstHeader = reader.record()?;
    check_const(&header)?;
    let volatile = header.volatile_header_offset.get();
    let offset = table_offset(volatile, SECTOR).ok_or_else(|| {
        let message = "Could not read volatile header from file: Input/output error";
        Error::new(ErrorKind::Corrupt, "volatile header offset", message)
    })?;
    reader.seek(offset);
    check_volatile(&reader.record()?)?;
    let directory_entries = header.grain_dir_size.get().saturating_mul(SECTOR / ENTRY_LEN);
    Sparse::new(&Layout {
        sectors: header.capacity.get(),
        grain_sectors: GRAIN_SECTORS,
        table_entries: TABLE_SECTORS * SECTOR / ENTRY_LEN,
        directory: (header.grain_dir_offset.get(), directory_entries),
        entries: Entries::SeSparse {
            tables: header.grain_tables_offset.get(),
            grains: header.grains_offset.get(),
        },
        fields: ["grain size", "grain directory offset", "grain directory size"],
    })
}

fn check_const(header: &ConstHeader) -> Result<(), Error> {
    if header.magic.get() != CONST_MAGIC {
        let message = format!("Bad const header magic: {:#018x}", header.magic.get());
        return Err(Error::new(ErrorKind::InvalidFormat, "magic", message));
    }
    if header.version.get() != VERSION {
        return Err(unsupported("version", format!("Unsupported version: {:#018x}", header.version.get())));
    }
    if header.grain_size.get() != GRAIN_SECTORS {
        let message = format!("Unsupported grain size: {}", header.grain_size.get());
        return Err(unsupported("grain size", message));
    }
    if header.grain_table_size.get() != TABLE_SECTORS {
        let message = format!("Unsupported grain table size: {}", header.grain_table_size.get());
        return Err(unsupported("grain table size", message));
    }
    if header.flags.get() != 0 {
        return Err(unsupported("flags", format!("Unsupported flags: {:#018x}", header.flags.get())));
    }
    let [one, two, three, four] = header.reserved.map(U64::get);
    if one | two | three | four != 0 {
        let message =
            format!("Unsupported reserved bits: {one:#018x} {two:#018x} {three:#018x} {four:#018x}");
        return Err(unsupported("reserved", message));
    }
    if header.padding.iter().any(|&byte| byte != 0) {
        return Err(unsupported("padding", "Unsupported non-zero const header padding"));
    }
    Ok(())
}

fn check_volatile(header: &VolatileHeader) -> Result<(), Error> {
    if header.magic.get() != VOLATILE_MAGIC {
        let message = format!("Bad volatile header magic: {:#018x}", header.magic.get());
        return Err(Error::new(ErrorKind::InvalidFormat, "volatile header magic", message));
    }
    if header.replay_journal.get() != 0 {
        let message = "Image is dirty, Replaying journal not supported";
        return Err(unsupported("replay journal", message));
    }
    if header.padding.iter().any(|&byte| byte != 0) {
        return Err(unsupported("volatile header padding", "Unsupported non-zero volatile header padding"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_sector() {
        assert_eq!(size_of::<ConstHeader>() as u64, SECTOR);
        assert_eq!(size_of::<VolatileHeader>() as u64, SECTOR);
    }
}

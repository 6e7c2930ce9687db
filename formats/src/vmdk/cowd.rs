//! `COWD` files, VMware's older sparse format, which VMFS still has. Section "ESX Server Sparse Extents".

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::sparse::{Entries, Layout, Sparse};
use crate::reader::Reader;
use crate::{Error, ErrorKind, Storage};

/// First bytes of the file.
pub(super) const MAGIC: [u8; 4] = *b"COWD";
/// Entries of a grain table.
const TABLE_ENTRIES: u64 = 4096;

/// The start of the header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fields {
    magic: [u8; 4],
    version: U32,
    flags: U32,
    num_sectors: U32,
    grain_size: U32,
    gd_offset: U32,
    num_gd_entries: U32,
}

/// Reads and checks the header.
pub(super) fn open<S: Storage>(reader: &mut Reader<'_, S>) -> Result<Sparse, Error> {
    reader.seek(0);
    let header: Fields = reader.record()?;
    let grain_sectors = u64::from(header.grain_size.get());
    let sparse = Sparse::new(&Layout {
        sectors: header.num_sectors.get().into(),
        grain_sectors,
        table_entries: TABLE_ENTRIES,
        directory: (header.gd_offset.get().into(), header.num_gd_entries.get().into()),
        entries: Entries::Sectors { zeroed_grains: false, compressed: None },
        fields: ["grainSize", "gdOffset", "numGDEntries"],
    })?;
    // QEMU counts what a table covers in 32 bits, and would go on with what is left.
    if grain_sectors * TABLE_ENTRIES > u32::MAX.into() {
        let message = "L1 entry size is invalid";
        return Err(Error::new(ErrorKind::InvalidFormat, "grainSize", message));
    }
    Ok(sparse)
}

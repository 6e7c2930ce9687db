//! New images, as `qemu-img create` makes them.

use zerocopy::IntoBytes;

use super::footer::{FOOTER_LEN, GEOMETRY_MAX, New, SECTORS_MAX};
use super::geometry::Geometry;
use super::header::{self, HEADER_LEN};
use super::walk::UNUSED;
use super::write::Target;
use super::{SECTOR, invalid};
use crate::storage::fill;
use crate::{Error, ErrorKind, StorageMut};

/// Size of a block in bytes.
const BLOCK_LEN: u32 = 2 << 20;

/// What a new VHD image is to be.
#[derive(Clone, Copy, Debug)]
pub struct Create {
    /// Size of the disk in bytes, rounded up to a sector; without [`force_size`](Self::force_size) it grows further, to what
    /// cylinders, heads and sectors express. At most 2040 GiB.
    pub size: u64,
    /// Whether the disk is stored as it is, instead of in blocks.
    pub fixed: bool,
    /// Whether the disk has the size that was asked for. Programs that go by the geometry take it for another.
    pub force_size: bool,
    /// "Time Stamp": seconds since 2000-01-01 00:00 UTC.
    pub timestamp: u32,
    /// "Unique Id".
    pub unique_id: [u8; 16],
}

/// Makes `storage`, an empty file, a VHD image of zeros.
///
/// # Errors
///
/// A disk of more than 2040 GiB, and failures of the storage.
pub fn create<S: StorageMut>(mut storage: S, create: &Create) -> Result<Target<S>, Error> {
    let asked = create.size.div_ceil(SECTOR);
    let geometry = if create.force_size { Geometry::MAX } else { Geometry::holding(asked) };
    let sectors = if geometry.total() == GEOMETRY_MAX { asked } else { geometry.total() };
    if sectors > SECTORS_MAX {
        let message = "Disk size is too large, max size is 2040 GiB";
        return Err(Error::new(ErrorKind::Limit, "current_size", message));
    }
    let footer = New { create, geometry, sectors }.fields();
    let virtual_size = sectors * SECTOR;
    if create.fixed {
        storage.write_at(virtual_size, footer.as_bytes())?;
        return Ok(Target::fixed(storage, virtual_size));
    }
    let entries = u32::try_from(virtual_size.div_ceil(BLOCK_LEN.into()))
        .map_err(|_| invalid("max_table_entries", "Disk has too many blocks"))?;
    let table_offset = FOOTER_LEN + HEADER_LEN;
    let table_len = (u64::from(entries) * 4).next_multiple_of(SECTOR);
    storage.write_at(0, footer.as_bytes())?;
    storage.write_at(FOOTER_LEN, header::new(table_offset, entries, BLOCK_LEN).as_bytes())?;
    let [unused, ..] = UNUSED.to_be_bytes();
    fill(&mut storage, table_offset, table_len, unused)?;
    storage.write_at(table_offset + table_len, footer.as_bytes())?;
    Target::open_blocks(storage, true)
}

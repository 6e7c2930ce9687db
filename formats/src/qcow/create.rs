//! New images, as `qemu-img create` makes them.

use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U32};

use super::write::Target;
use super::{
    BACKING_NAME_MAX, ENTRY_BITS, Fields, L1_ENTRIES_MAX, MAGIC, SECTOR, VERSION, invalid, too_large,
};
use crate::two_level::Geometry;
use crate::{Error, StorageMut};

/// What a new qcow image is to be.
#[derive(Clone, Copy, Debug)]
pub struct Create<'a> {
    /// Size of the disk in bytes, rounded up to a sector of 512: not 0, and at most 512 TiB less 2 MiB.
    pub size: u64,
    /// File name of the image below, if there is one. Clusters are sectors then, else 4 KiB.
    pub backing_file: Option<&'a [u8]>,
}

/// Makes `storage`, an empty file, a qcow image without data.
///
/// # Errors
///
/// A disk that is too short or too long, a name that is too long, and failures of the storage.
pub fn create<S: StorageMut>(mut storage: S, create: &Create<'_>) -> Result<Target<S>, Error> {
    let size = create.size.checked_next_multiple_of(SECTOR).ok_or_else(too_large)?;
    if size == 0 {
        return Err(invalid("size", "Image size is too small, cannot be zero length"));
    }
    let name = create.backing_file.unwrap_or_default();
    let name_len = u32::try_from(name.len()).unwrap_or(u32::MAX);
    if name_len > BACKING_NAME_MAX {
        return Err(invalid("backing_file_size", "Backing file name too long"));
    }
    // An L2 table is as much of the disk in either case: one entry covers a cluster, the other eight.
    let (cluster_bits, l2_bits) = if create.backing_file.is_some() { (9, 12) } else { (12, 9) };
    let header_len = size_of::<Fields>() as u64;
    let l1_offset = (header_len + name.len() as u64).next_multiple_of(8);
    let l1_entries = size.div_ceil(1 << (cluster_bits + l2_bits));
    if l1_entries > L1_ENTRIES_MAX {
        return Err(too_large());
    }
    let fields = Fields {
        magic: MAGIC.into(),
        version: VERSION.into(),
        backing_file_offset: create.backing_file.map_or(0, |_| header_len).into(),
        backing_file_size: name_len.into(),
        mtime: U32::ZERO,
        size: size.into(),
        cluster_bits,
        l2_bits,
        padding: U16::ZERO,
        crypt_method: U32::ZERO,
        l1_table_offset: l1_offset.into(),
    };
    storage.write_at(0, &[fields.as_bytes(), name].concat())?;
    let end = l1_offset + (l1_entries << ENTRY_BITS).next_multiple_of(SECTOR);
    storage.set_length(end)?;
    let (l2_bits, cluster_bits) = (l2_bits.into(), cluster_bits.into());
    let geometry = Geometry { l1_offset, l1_entries, l2_bits, cluster_bits, disk_len: size };
    Ok(Target::new(storage, geometry, create.backing_file.is_some(), 0))
}

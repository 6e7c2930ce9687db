//! New images, as `qemu-img create` makes them.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::write::Target;
use super::{
    BAT_ENTRIES_MAX, Fields, MAGIC_CLUSTERS, PAGE, SECTOR, TABLES_LIMIT, TRACKS_MAX, VERSION, limit,
};
use crate::{Error, StorageMut};

/// Heads of the geometry.
const HEADS: u32 = 16;
/// Sectors of a track of it, whatever `tracks` says.
const TRACK_SECTORS: u64 = 32;

/// What a new Parallels image is to be.
#[derive(Clone, Copy, Debug)]
pub struct Create {
    /// Size of the disk in bytes, rounded up to a sector of 512.
    pub size: u64,
    /// Size of a cluster in bytes: whole sectors, at least one and at most 4186002 of them.
    pub cluster_size: u32,
}

/// Makes `storage`, an empty file, a Parallels image of zeros.
///
/// # Errors
///
/// Clusters that are no whole sectors or too large, a disk of too many of them, and failures of the storage.
pub fn create<S: StorageMut>(mut storage: S, create: &Create) -> Result<Target<S>, Error> {
    let cluster_len = u64::from(create.cluster_size);
    let too_long = || limit("nb_sectors", "Image size is too large for this cluster size");
    let tracks = create.cluster_size / 512;
    if cluster_len == 0 || !cluster_len.is_multiple_of(SECTOR) || tracks > TRACKS_MAX {
        return Err(limit("tracks", "Invalid image: Too big cluster"));
    }
    let size = create.size.checked_next_multiple_of(SECTOR).filter(|&size| size < cluster_len << 32);
    let size = size.ok_or_else(too_long)?;
    let bat_entries = u32::try_from(size.div_ceil(cluster_len)).map_err(|_| too_long())?;
    let bat_end = size_of::<Fields>() as u64 + u64::from(bat_entries) * 4;
    if bat_entries > BAT_ENTRIES_MAX || bat_end.next_multiple_of(PAGE) >= TABLES_LIMIT {
        return Err(limit("bat_entries", "Catalog too large"));
    }
    let start = bat_end.next_multiple_of(cluster_len);
    let sectors = |bytes: u64| u32::try_from(bytes / SECTOR).map_err(|_| too_long());
    let cylinders = size / SECTOR / u64::from(HEADS) / TRACK_SECTORS;
    let fields = Fields {
        magic: *MAGIC_CLUSTERS,
        version: VERSION.into(),
        heads: HEADS.into(),
        // As QEMU has it, what does not fit is left out.
        cylinders: u32::try_from(cylinders & u64::from(u32::MAX)).unwrap_or(0).into(),
        tracks: tracks.into(),
        bat_entries: bat_entries.into(),
        nb_sectors: (size / SECTOR).into(),
        in_use: U32::ZERO,
        data_off: sectors(start)?.into(),
        flags: U32::ZERO,
        ext_off: U64::ZERO,
    };
    storage.write_at(0, fields.as_bytes())?;
    storage.set_length(start)?;
    Target::of_new(storage)
}

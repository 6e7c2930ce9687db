//! New images, as `qemu-img create` makes them.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::write::Target;
use super::{
    BACKING_NAME_LIMIT, CLUSTER_LEN, FEATURE_BACKING_FILE, FEATURE_NO_PROBE, Fields, MAGIC, SECTOR,
    TABLE_LEN, invalid,
};
use crate::two_level::Geometry;
use crate::{Error, ErrorKind, StorageMut};

/// What a new QED image is to be.
#[derive(Clone, Copy, Debug)]
pub struct Create<'a> {
    /// Size of the disk in bytes, rounded up to a sector of 512.
    pub size: u64,
    /// `cluster_size`: bytes, a power of two from 4 KiB to 64 MiB.
    pub cluster_size: u32,
    /// `table_size`: clusters of a table, a power of two from 2 to 16. `qemu-img` makes images with tables of one, too, and
    /// does not open them.
    pub table_size: u32,
    /// File name of the image below, if there is one.
    pub backing_file: Option<&'a [u8]>,
    /// Whether the image below is to be taken as raw, and not probed.
    pub backing_is_raw: bool,
}

/// Makes `storage`, an empty file, a QED image without data.
///
/// # Errors
///
/// Sizes out of range, a disk that is longer than the tables map, a name that is too long, and failures of the storage.
pub fn create<S: StorageMut>(mut storage: S, create: &Create<'_>) -> Result<Target<S>, Error> {
    let Create { cluster_size, table_size, backing_file, .. } = *create;
    if !CLUSTER_LEN.contains(&cluster_size) || !cluster_size.is_power_of_two() {
        let message = "QED cluster size must be within range [4096, 67108864] and power of 2";
        return Err(invalid("cluster_size", message));
    }
    if !TABLE_LEN.contains(&table_size) || !table_size.is_power_of_two() {
        return Err(invalid("table_size", "QED table size must be within range [1, 16] and power of 2"));
    }
    if table_size == 1 {
        return Err(invalid("l1_table_offset", "QED table offset is invalid"));
    }
    let (cluster_len, table_len) = (u64::from(cluster_size), u64::from(cluster_size) * u64::from(table_size));
    let entries = table_len / size_of::<U64>() as u64;
    // As QEMU has it, the product wraps round.
    let most = (entries * cluster_len).wrapping_mul(entries);
    let size =
        create.size.checked_next_multiple_of(SECTOR).filter(|&size| size <= most).ok_or_else(|| {
            let message = alloc::format!(
                "QED image size must be a non-zero multiple of cluster size and less than {most} bytes"
            );
            Error::new(ErrorKind::Limit, "image_size", message)
        })?;
    let name = backing_file.unwrap_or_default();
    let name_len = u32::try_from(name.len()).unwrap_or(u32::MAX);
    let name_offset = u32::try_from(size_of::<Fields>()).unwrap_or(u32::MAX);
    if name_len >= BACKING_NAME_LIMIT || u64::from(name_offset) + u64::from(name_len) > cluster_len {
        return Err(invalid("backing_filename_size", "Backing file name too long"));
    }
    let features = match (backing_file, create.backing_is_raw) {
        (None, _) => 0,
        (Some(_), false) => FEATURE_BACKING_FILE,
        (Some(_), true) => FEATURE_BACKING_FILE | FEATURE_NO_PROBE,
    };
    let fields = Fields {
        magic: MAGIC.into(),
        cluster_size: cluster_size.into(),
        table_size: table_size.into(),
        header_size: 1.into(),
        features: features.into(),
        compat_features: U64::ZERO,
        autoclear_features: U64::ZERO,
        l1_table_offset: cluster_len.into(),
        image_size: size.into(),
        backing_filename_offset: backing_file.map_or(0, |_| name_offset).into(),
        backing_filename_size: name_len.into(),
    };
    storage.write_at(0, &[fields.as_bytes(), name].concat())?;
    storage.set_length(cluster_len + table_len)?;
    let geometry = Geometry {
        l1_offset: cluster_len,
        l1_entries: entries,
        l2_bits: entries.trailing_zeros(),
        cluster_bits: cluster_len.trailing_zeros(),
        disk_len: size,
    };
    Ok(Target::new(storage, geometry, cluster_len, backing_file.is_some(), 0))
}

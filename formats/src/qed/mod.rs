//! QED, QEMU's enhanced disk format. Field names are those of its specification (`docs/interop/qed_spec.txt`); checks
//! come in `qemu-img`'s order and in its words.

mod check;
mod create;
mod write;

use alloc::format;
use alloc::string::String;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use create::{Create, create};
pub use write::{Target, open};

use crate::reader::{Reader, c_string};
use crate::run::Place;
use crate::two_level::{Geometry, Scheme, TwoLevel};
use crate::{BackingFile, Error, ErrorKind, Extent, Storage};

/// "QED\0".
const MAGIC: u32 = u32::from_le_bytes(*b"QED\0");
/// Cluster sizes in bytes.
const CLUSTER_LEN: core::ops::RangeInclusive<u32> = 1 << 12..=1 << 26;
/// Table sizes in clusters.
const TABLE_LEN: core::ops::RangeInclusive<u32> = 1..=16;
/// Unit in bytes of the size of the disk and of a file.
const SECTOR: u64 = 512;
/// Bytes of a backing file name that are too many: QEMU's limit.
const BACKING_NAME_LIMIT: u32 = 4096;
/// An L2 entry that says that the cluster is zero.
const ENTRY_ZERO: u64 = 1;

const FEATURE_BACKING_FILE: u64 = 1;
const FEATURE_NEED_CHECK: u64 = 1 << 1;
const FEATURE_NO_PROBE: u64 = 1 << 2;
/// The three above, one of which says that the image was not closed: it does not matter to a reader.
const FEATURES_KNOWN: u64 = 7;

/// The fields as they lie in the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fields {
    magic: U32,
    cluster_size: U32,
    table_size: U32,
    header_size: U32,
    features: U64,
    compat_features: U64,
    autoclear_features: U64,
    l1_table_offset: U64,
    image_size: U64,
    backing_filename_offset: U32,
    backing_filename_size: U32,
}

/// Whether the first bytes of a file are those of a QED image.
pub(crate) fn probe(head: &[u8]) -> bool {
    Fields::read_from_prefix(head).is_ok_and(|(fields, _)| fields.magic.get() == MAGIC)
}

/// An open QED image.
#[derive(Debug)]
pub(crate) struct Qed {
    virtual_size: u64,
    backing: Option<BackingFile>,
    needs_check: bool,
    /// File offset in bytes of the first cluster behind the header.
    header_end: u64,
    geometry: Geometry,
    walk: TwoLevel<Clusters>,
}

fn invalid(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFormat, field, message)
}

impl Qed {
    pub(crate) fn open<S: Storage>(storage: &mut S) -> Result<Self, Error> {
        let file_len = storage.len();
        let mut reader = Reader::new(storage);
        let fields: Fields = reader.record()?;
        let clusters = fields.check(file_len)?;
        let table_entries = clusters.table_len / 8;
        let geometry = Geometry {
            l1_offset: fields.l1_table_offset.get(),
            l1_entries: table_entries,
            l2_bits: table_entries.trailing_zeros(),
            cluster_bits: clusters.cluster_len.trailing_zeros(),
            disk_len: fields.image_size.get(),
        };
        let backing = backing_file(&mut reader, &fields)?;
        if geometry.disk_len > i64::MAX as u64 {
            let message = "Could not refresh total sector count: File too large";
            return Err(Error::new(ErrorKind::Limit, "image_size", message));
        }
        let virtual_size = geometry.disk_len;
        let needs_check = fields.features.get() & FEATURE_NEED_CHECK != 0;
        let header_end = clusters.header_len;
        let walk = TwoLevel::new(geometry, clusters);
        Ok(Self { virtual_size, backing, needs_check, header_end, geometry, walk })
    }

    /// Whether it was not closed properly.
    pub(crate) fn needs_check(&self) -> bool {
        self.needs_check
    }

    /// Length of a cluster in bytes.
    pub(crate) fn cluster_len(&self) -> u64 {
        self.walk.cluster_len()
    }

    /// Bytes of the disk that an L2 table covers.
    pub(crate) fn table_coverage(&self) -> u64 {
        self.walk.table_coverage()
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    pub(crate) fn backing(&self) -> Option<&BackingFile> {
        self.backing.as_ref()
    }

    pub(crate) fn max_extents(&self, file_len: u64) -> u64 {
        self.walk.max_extents(file_len)
    }

    /// `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at<S: Storage>(&mut self, storage: &mut S, offset: u64) -> Result<Extent, Error> {
        self.walk.extent_at(storage, offset)
    }
}

impl Fields {
    /// Checks all but the backing file and gives the sizes that the checks of entries go by.
    fn check(&self, file_len: u64) -> Result<Clusters, Error> {
        if self.magic.get() != MAGIC {
            return Err(invalid("magic", "Image not in QED format"));
        }
        let unknown = self.features.get() & !FEATURES_KNOWN;
        if unknown != 0 {
            let message = format!("Unsupported QED features: {unknown:x}");
            return Err(Error::new(ErrorKind::Unsupported, "features", message));
        }
        let valid = |range: core::ops::RangeInclusive<u32>, size: u32| {
            range.contains(&size) && size.is_power_of_two()
        };
        if !valid(CLUSTER_LEN, self.cluster_size.get()) {
            return Err(invalid("cluster_size", "QED cluster size is invalid"));
        }
        if !valid(TABLE_LEN, self.table_size.get()) {
            return Err(invalid("table_size", "QED table size is invalid"));
        }
        let cluster_len = u64::from(self.cluster_size.get());
        let clusters = Clusters {
            cluster_len,
            table_len: u64::from(self.table_size.get()) * cluster_len,
            header_len: u64::from(self.header_size.get()) * cluster_len,
            file_end: file_len.next_multiple_of(SECTOR) / cluster_len * cluster_len,
        };
        // The product wraps round here as it does in qemu-img: no disk is small enough for the largest tables.
        let entries = clusters.table_len / 8;
        let max = entries.wrapping_mul(cluster_len).wrapping_mul(entries);
        let size = self.image_size.get();
        if !size.is_multiple_of(SECTOR) || size > max {
            return Err(invalid("image_size", "QED image size is invalid"));
        }
        if !clusters.is_table(self.l1_table_offset.get()) {
            return Err(invalid("l1_table_offset", "QED table offset is invalid"));
        }
        if clusters.header_len > u32::MAX.into() {
            return Err(invalid("header_size", "QED header size is too large"));
        }
        if self.has_backing_file() {
            let (offset, size) = (self.backing_filename_offset.get(), self.backing_filename_size.get());
            if u64::from(offset) + u64::from(size) > clusters.header_len {
                return Err(invalid("backing_filename_offset", "QED backing filename offset is invalid"));
            }
        }
        Ok(clusters)
    }

    fn has_backing_file(&self) -> bool {
        self.features.get() & FEATURE_BACKING_FILE != 0
    }
}

fn backing_file<S: Storage>(
    reader: &mut Reader<'_, S>,
    fields: &Fields,
) -> Result<Option<BackingFile>, Error> {
    if !fields.has_backing_file() {
        return Ok(None);
    }
    let size = fields.backing_filename_size.get();
    let Some(length) = usize::try_from(size).ok().filter(|_| size < BACKING_NAME_LIMIT) else {
        return Err(invalid("backing_filename_size", "Failed to read backing filename"));
    };
    reader.seek(fields.backing_filename_offset.get().into());
    let name = c_string(reader.bytes(length)?);
    let format = (fields.features.get() & FEATURE_NO_PROBE != 0).then(|| b"raw".to_vec());
    Ok((!name.is_empty()).then_some(BackingFile { name, format }))
}

/// What offsets of clusters are measured by, in bytes.
#[derive(Debug)]
struct Clusters {
    cluster_len: u64,
    table_len: u64,
    header_len: u64,
    /// Length of the file without the part of a cluster at its end.
    file_end: u64,
}

impl Clusters {
    fn is_cluster(&self, offset: u64) -> bool {
        offset.is_multiple_of(self.cluster_len) && (self.header_len..self.file_end).contains(&offset)
    }
}

impl Scheme for Clusters {
    type Entry = U64;

    /// A table of one cluster is never valid: so it is to `qemu-img`.
    fn is_table(&self, offset: u64) -> bool {
        let last = offset.wrapping_add(self.table_len - self.cluster_len);
        last > offset && self.is_cluster(offset) && self.is_cluster(last)
    }

    fn cluster(&self, entry: u64) -> Place {
        match entry {
            0 => Place::Unallocated,
            ENTRY_ZERO => Place::Zero,
            _ if self.is_cluster(entry) => Place::Data(entry),
            _ => Place::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_lie_where_the_specification_puts_them() {
        use core::mem::offset_of;
        assert_eq!(size_of::<Fields>(), 64);
        assert_eq!(offset_of!(Fields, l1_table_offset), 40);
    }

    #[test]
    fn clusters_lie_between_the_header_and_the_end_of_the_file() {
        let clusters =
            Clusters { cluster_len: 0x1000, table_len: 0x2000, header_len: 0x1000, file_end: 0x5000 };
        assert_eq!(clusters.cluster(0), Place::Unallocated);
        assert_eq!(clusters.cluster(1), Place::Zero);
        assert_eq!(clusters.cluster(0x4000), Place::Data(0x4000));
        for entry in [2, 0x800, 0x4800, 0x5000, !0xfff] {
            assert_eq!(clusters.cluster(entry), Place::Invalid);
        }
        assert!(clusters.is_table(0x3000));
        assert!(!clusters.is_table(0x4000));
        assert!(!clusters.is_table(0u64.wrapping_sub(0x1000)));
        assert!(!Clusters { table_len: 0x1000, ..clusters }.is_table(0x3000));
    }
}

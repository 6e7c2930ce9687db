//! Section "Header": the fixed fields, each bounded here once.

use alloc::format;
use alloc::string::String;
use core::mem::offset_of;

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::extensions::unsupported_features;
use super::types::{CLUSTER_BITS_MIN, ClusterBits, Compression, CryptMethod, Version};
use crate::access::Access;
use crate::reader::Reader;
use crate::{Error, ErrorKind, Storage};

/// "QFI\xfb".
pub(super) const MAGIC: u32 = 0x5146_49fb;

/// Length of the version 2 header in bytes.
pub(super) const HEADER_LEN_V2: u32 = 72;
/// Least `header_length` of version 3 in bytes.
const HEADER_LEN_V3_MIN: u32 = 104;
/// Largest `refcount_order`: 64-bit reference counts.
const REFCOUNT_ORDER_MAX: u32 = 6;
/// `refcount_order` of every version 2 image: 16 bits.
const REFCOUNT_ORDER_V2: u32 = 4;
/// Largest reference count table in bytes: QEMU's limit.
pub(super) const REFCOUNT_TABLE_MAX: u64 = 8 << 20;
/// File offset in bytes of `refcount_table_offset`; `refcount_table_clusters` is behind it.
pub(super) const REFCOUNT_TABLE_OFFSET: u64 = offset_of!(Fields, refcount_table_offset) as u64;
/// File offset in bytes of `nb_snapshots`; `snapshots_offset` is behind it.
pub(super) const SNAPSHOTS_OFFSET: u64 = offset_of!(Fields, nb_snapshots) as u64;
/// File offset in bytes of `incompatible_features`.
const INCOMPATIBLE_OFFSET: u64 = offset_of!(Fields, incompatible_features) as u64;
/// File offset in bytes of `autoclear_features`.
const AUTOCLEAR_OFFSET: u64 = offset_of!(Fields, autoclear_features) as u64;
/// Largest L1 table in bytes: QEMU's limit.
pub(super) const L1_TABLE_MAX: u64 = 32 << 20;
/// Most internal snapshots: QEMU's limit.
const SNAPSHOTS_MAX: u64 = 65536;
/// Length in bytes of a snapshot's fixed fields. Section "Snapshots".
const SNAPSHOT_LEN: u64 = 40;
/// Length of an L1 or refcount table entry in bytes.
pub(super) const TABLE_ENTRY_LEN: u64 = 8;
/// Subclusters of a cluster. Section "Extended L2 Entries".
pub(super) const SUBCLUSTERS: u32 = 32;
/// Largest index that QEMU takes for an L1 table.
const L1_INDEX_MAX: u64 = i32::MAX as u64;

const INCOMPATIBLE_DIRTY: u64 = 1;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
pub(super) const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
pub(super) const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
pub(super) const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
const INCOMPATIBLE_KNOWN: u64 = 0x1f;
pub(super) const COMPATIBLE_LAZY_REFCOUNTS: u64 = 1;
pub(super) const AUTOCLEAR_BITMAPS: u64 = 1;
pub(super) const AUTOCLEAR_DATA_FILE_RAW: u64 = 1 << 1;

/// The fields as they lie in the file.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Fields {
    pub(super) magic: U32,
    pub(super) version: U32,
    pub(super) backing_file_offset: U64,
    pub(super) backing_file_size: U32,
    pub(super) cluster_bits: U32,
    pub(super) size: U64,
    pub(super) crypt_method: U32,
    pub(super) l1_size: U32,
    pub(super) l1_table_offset: U64,
    pub(super) refcount_table_offset: U64,
    pub(super) refcount_table_clusters: U32,
    pub(super) nb_snapshots: U32,
    pub(super) snapshots_offset: U64,
    pub(super) incompatible_features: U64,
    pub(super) compatible_features: U64,
    pub(super) autoclear_features: U64,
    pub(super) refcount_order: U32,
    pub(super) header_length: U32,
    pub(super) compression_type: u8,
    pub(super) padding: [u8; 7],
}

/// Whether the first bytes of a file (any number; what is missing counts as zero) are those of a qcow2 image.
pub(crate) fn probe(head: &[u8]) -> bool {
    let Ok((magic, rest)) = U32::read_from_prefix(head) else { return false };
    let Ok((version, _)) = U32::read_from_prefix(rest) else { return false };
    magic.get() == MAGIC && version.get() >= 2
}

/// The header: every field within its limits, tables at aligned offsets below 2^63. That a table lies inside the file
/// is not known from the header alone.
#[derive(Clone, Debug)]
pub struct Header {
    version: Version,
    cluster_bits: ClusterBits,
    crypt_method: CryptMethod,
    compression: Compression,
    size: u64,
    backing_file_offset: u64,
    backing_file_size: u32,
    l1_size: u32,
    l1_table_offset: u64,
    refcount_table_offset: u64,
    refcount_table_clusters: u32,
    refcount_order: u32,
    nb_snapshots: u32,
    snapshots_offset: u64,
    header_length: u32,
    incompatible_features: u64,
    compatible_features: u64,
    autoclear_features: u64,
}

fn invalid(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFormat, field, message)
}

impl Header {
    /// Reads and checks the header.
    pub(super) fn read<S: Storage>(reader: &mut Reader<'_, S>, access: Access<'_>) -> Result<Self, Error> {
        let fields: Fields = reader.record()?;
        if fields.magic.get() != MAGIC {
            return Err(invalid("magic", "Image is not in qcow2 format"));
        }
        let version = match fields.version.get() {
            2 => Version::V2,
            3 => Version::V3,
            other => {
                let message = format!("Unsupported qcow2 version {other}");
                return Err(Error::new(ErrorKind::Unsupported, "version", message));
            }
        };
        let cluster_bits = ClusterBits::new(fields.cluster_bits.get()).ok_or_else(|| {
            let message = format!("Unsupported cluster size: 2^{}", fields.cluster_bits.get());
            Error::new(ErrorKind::Unsupported, "cluster_bits", message)
        })?;
        let mut header = Self {
            version,
            cluster_bits,
            crypt_method: CryptMethod::None,
            compression: Compression::Zlib,
            size: fields.size.get(),
            backing_file_offset: fields.backing_file_offset.get(),
            backing_file_size: fields.backing_file_size.get(),
            l1_size: fields.l1_size.get(),
            l1_table_offset: fields.l1_table_offset.get(),
            refcount_table_offset: fields.refcount_table_offset.get(),
            refcount_table_clusters: fields.refcount_table_clusters.get(),
            refcount_order: REFCOUNT_ORDER_V2,
            nb_snapshots: fields.nb_snapshots.get(),
            snapshots_offset: fields.snapshots_offset.get(),
            header_length: HEADER_LEN_V2,
            incompatible_features: 0,
            compatible_features: 0,
            autoclear_features: 0,
        };
        if version == Version::V3 {
            header.refcount_order = fields.refcount_order.get();
            header.header_length = fields.header_length.get();
            header.incompatible_features = fields.incompatible_features.get();
            header.compatible_features = fields.compatible_features.get();
            header.autoclear_features = fields.autoclear_features.get();
            if header.header_length < HEADER_LEN_V3_MIN {
                return Err(invalid("header_length", "qcow2 header too short"));
            }
        }
        header.check_head()?;
        header.compression = header.compression(fields.compression_type)?;
        let unknown = header.incompatible_features & !INCOMPATIBLE_KNOWN;
        if unknown != 0 {
            let message = unsupported_features(reader, &header, unknown)?;
            return Err(Error::new(ErrorKind::Unsupported, "incompatible_features", message));
        }
        header.check_tables(access)?;
        header.crypt_method = match fields.crypt_method.get() {
            0 => CryptMethod::None,
            1 => CryptMethod::Aes,
            2 => CryptMethod::Luks,
            other => {
                let message = format!("Unsupported encryption method {}", other.cast_signed());
                return Err(Error::new(ErrorKind::Unsupported, "crypt_method", message));
            }
        };
        Ok(header)
    }

    fn check_head(&self) -> Result<(), Error> {
        if u64::from(self.header_length) > self.cluster_bits.size() {
            return Err(invalid("header_length", "qcow2 header exceeds cluster size"));
        }
        if self.backing_file_offset > self.cluster_bits.size() {
            return Err(invalid("backing_file_offset", "Invalid backing file offset"));
        }
        Ok(())
    }

    /// Section "Additional fields": the field is there if the header is longer than 104 bytes, and the feature bit is
    /// set exactly if it is not zlib.
    fn compression(&self, field: u8) -> Result<Compression, Error> {
        let compression = match field {
            _ if self.header_length <= HEADER_LEN_V3_MIN => Compression::Zlib,
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            other => {
                let message = format!("qcow2: unknown compression type: {other}");
                return Err(Error::new(ErrorKind::Unsupported, "compression_type", message));
            }
        };
        let flagged = self.incompatible_features & INCOMPATIBLE_COMPRESSION != 0;
        match (compression, flagged) {
            (Compression::Zlib, true) => {
                let message = "qcow2: Compression type incompatible feature bit must not be set";
                Err(invalid("incompatible_features", message))
            }
            (Compression::Zstd, false) => {
                let message = "qcow2: Compression type incompatible feature bit must be set";
                Err(invalid("incompatible_features", message))
            }
            _ => Ok(compression),
        }
    }

    /// A check looks at the snapshot table itself, and takes an image without a refcount table.
    fn check_tables(&self, access: Access<'_>) -> Result<(), Error> {
        let for_check = matches!(access, Access::Check);
        if self.has_extended_l2() && self.cluster_bits.size() / u64::from(SUBCLUSTERS) < 1 << CLUSTER_BITS_MIN
        {
            let size = self.cluster_bits.size() / u64::from(SUBCLUSTERS);
            let message = format!("Unsupported subcluster size: {size}");
            return Err(Error::new(ErrorKind::Unsupported, "cluster_bits", message));
        }
        if self.refcount_order > REFCOUNT_ORDER_MAX {
            let message = "Reference count entry width too large; may not exceed 64 bits";
            return Err(invalid("refcount_order", message));
        }
        if self.refcount_table_clusters == 0 && !for_check {
            let message = "Image does not contain a reference count table";
            return Err(invalid("refcount_table_clusters", message));
        }
        self.check_table(&Table {
            name: "Reference count table",
            fields: ("refcount_table_clusters", "refcount_table_offset"),
            offset: self.refcount_table_offset,
            entries: self.refcount_table_clusters,
            entry_len: self.cluster_bits.size(),
            max_len: REFCOUNT_TABLE_MAX,
        })?;
        if !for_check {
            self.check_snapshot_table("Snapshot table")?;
        }
        self.check_l1("Active L1 table", ("l1_size", "l1_table_offset"), self.l1_table_offset, self.l1_size)?;
        // A size near 2^64 wraps round here as it does in qemu-img; `check_disk_length` refuses it in the end.
        let needed = self.size.wrapping_add((1 << self.l1_coverage_bits()) - 1) >> self.l1_coverage_bits();
        if needed > L1_INDEX_MAX {
            return Err(Error::new(ErrorKind::Limit, "size", "Image is too big"));
        }
        if u64::from(self.l1_size) < needed {
            return Err(invalid("l1_size", "L1 table is too small"));
        }
        Ok(())
    }

    /// That the snapshot table, which messages call `name`, may be where the header says.
    pub(super) fn check_snapshot_table(&self, name: &'static str) -> Result<(), Error> {
        self.check_table(&Table {
            name,
            fields: ("nb_snapshots", "snapshots_offset"),
            offset: self.snapshots_offset,
            entries: self.nb_snapshots,
            entry_len: SNAPSHOT_LEN,
            max_len: SNAPSHOT_LEN * SNAPSHOTS_MAX,
        })
    }

    /// That an L1 table, the active one or a snapshot's, may be where its fields say.
    pub(super) fn check_l1(
        &self,
        name: &'static str,
        fields: (&'static str, &'static str),
        offset: u64,
        entries: u32,
    ) -> Result<(), Error> {
        self.check_table(&Table {
            name,
            fields,
            offset,
            entries,
            entry_len: TABLE_ENTRY_LEN,
            max_len: L1_TABLE_MAX,
        })
    }

    fn check_table(&self, table: &Table) -> Result<(), Error> {
        let (entries_field, offset_field) = table.fields;
        if u64::from(table.entries) > table.max_len / table.entry_len {
            return Err(Error::new(ErrorKind::Limit, entries_field, format!("{} too large", table.name)));
        }
        let end = table.offset.checked_add(u64::from(table.entries) * table.entry_len);
        if end.is_none_or(|end| end > i64::MAX as u64) || !self.cluster_bits.aligned(table.offset) {
            return Err(invalid(offset_field, format!("{} offset invalid", table.name)));
        }
        Ok(())
    }

    /// The last of `qemu-img`'s checks: the disk's length in bytes is a signed 64-bit number.
    pub(super) fn check_disk_length(&self) -> Result<(), Error> {
        if self.virtual_size() > i64::MAX as u64 {
            let message = "Could not refresh total sector count: File too large";
            return Err(Error::new(ErrorKind::Limit, "size", message));
        }
        Ok(())
    }

    /// Version of the format.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Cluster size, as a power of two.
    pub fn cluster_bits(&self) -> ClusterBits {
        self.cluster_bits
    }

    /// Size of the virtual disk in bytes: `size` without the part of a sector at its end.
    pub fn virtual_size(&self) -> u64 {
        self.size & !511
    }

    /// Encryption of the data.
    pub fn crypt_method(&self) -> CryptMethod {
        self.crypt_method
    }

    /// Compression of compressed clusters.
    pub fn compression_type(&self) -> Compression {
        self.compression
    }

    /// Width of a reference count in bits: a power of two from 1 to 64.
    pub fn refcount_bits(&self) -> u32 {
        1 << self.refcount_order
    }

    /// log2 of [`refcount_bits`](Self::refcount_bits), 0 to 6.
    pub fn refcount_order(&self) -> u32 {
        self.refcount_order
    }

    /// Entries of the active L1 table, at most 4194304, and its offset in the file: a multiple of the cluster size.
    pub fn l1_table(&self) -> (u32, u64) {
        (self.l1_size, self.l1_table_offset)
    }

    /// Length of the reference count table in bytes, at most 8 MiB, and its offset in the file: a multiple of the
    /// cluster size.
    pub fn refcount_table(&self) -> (u64, u64) {
        (u64::from(self.refcount_table_clusters) * self.cluster_bits.size(), self.refcount_table_offset)
    }

    /// log2 of the counts of a refcount block.
    pub(super) fn refcount_block_bits(&self) -> u32 {
        self.cluster_bits.get() + 3 - self.refcount_order
    }

    /// The header with another refcount table: its first cluster, and its clusters, which are within the limit.
    pub(super) fn with_refcount_table(&self, cluster: u64, clusters: u64) -> Self {
        Self {
            refcount_table_offset: cluster << self.cluster_bits.get(),
            refcount_table_clusters: u32::try_from(clusters).unwrap_or(u32::MAX),
            ..self.clone()
        }
    }

    /// The header with another snapshot table.
    pub(super) fn with_snapshots(&self, count: u32, offset: u64) -> Self {
        Self { nb_snapshots: count, snapshots_offset: offset, ..self.clone() }
    }

    /// The incompatible features of an image that is neither dirty nor corrupt, and where they stand in the file, if
    /// this one is either.
    pub(super) fn cleaned(&self) -> Option<(u64, u64)> {
        let clean = self.incompatible_features & !(INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT);
        (clean != self.incompatible_features).then_some((INCOMPATIBLE_OFFSET, clean))
    }

    /// The autoclear features without those that a writer must clear as it does not know them, and where they stand in
    /// the file, if there are such.
    pub(super) fn autocleared(&self) -> Option<(u64, u64)> {
        let known = self.autoclear_features & (AUTOCLEAR_BITMAPS | AUTOCLEAR_DATA_FILE_RAW);
        (known != self.autoclear_features).then_some((AUTOCLEAR_OFFSET, known))
    }

    /// Number of internal snapshots, at most 65536, and the offset of their table in the file: a multiple of the
    /// cluster size.
    pub fn snapshots(&self) -> (u32, u64) {
        (self.nb_snapshots, self.snapshots_offset)
    }

    /// Whether reference counts may be stale.
    pub fn is_dirty(&self) -> bool {
        self.incompatible_features & INCOMPATIBLE_DIRTY != 0
    }

    /// Whether the image was marked as corrupt.
    pub fn is_corrupt(&self) -> bool {
        self.incompatible_features & INCOMPATIBLE_CORRUPT != 0
    }

    /// Whether the data is in another file.
    pub fn has_data_file(&self) -> bool {
        self.incompatible_features & INCOMPATIBLE_DATA_FILE != 0
    }

    /// Whether the other file is said to be a raw image of the disk.
    pub fn data_file_raw(&self) -> bool {
        self.autoclear_features & AUTOCLEAR_DATA_FILE_RAW != 0
    }

    /// Whether L2 entries are 16 bytes long and tell subclusters apart.
    pub fn has_extended_l2(&self) -> bool {
        self.incompatible_features & INCOMPATIBLE_EXTENDED_L2 != 0
    }

    /// Whether writers may leave reference counts for later.
    pub fn lazy_refcounts(&self) -> bool {
        self.compatible_features & COMPATIBLE_LAZY_REFCOUNTS != 0
    }

    /// Whether there are compatible or autoclear features that are not known, and need not be.
    pub fn has_unknown_features(&self) -> bool {
        let (compatible, autoclear) =
            (COMPATIBLE_LAZY_REFCOUNTS, AUTOCLEAR_BITMAPS | AUTOCLEAR_DATA_FILE_RAW);
        self.compatible_features & !compatible != 0 || self.autoclear_features & !autoclear != 0
    }

    /// Whether the bitmaps extension is in step with the data.
    pub fn bitmaps_consistent(&self) -> bool {
        self.autoclear_features & AUTOCLEAR_BITMAPS != 0
    }

    /// File offset and length in bytes of the backing file's name, the length as yet unchecked.
    pub(super) fn backing_name(&self) -> Option<(u64, u32)> {
        (self.backing_file_offset != 0).then_some((self.backing_file_offset, self.backing_file_size))
    }

    /// Where header extensions start and where they must end, in bytes, both at most a cluster.
    pub(super) fn extension_area(&self) -> (u64, u64) {
        let end = self.backing_name().map_or(self.cluster_bits.size(), |(offset, _)| offset);
        (u64::from(self.header_length), end)
    }

    /// Length of an L2 entry in bytes.
    pub(crate) fn l2_entry_len(&self) -> u64 {
        if self.has_extended_l2() { 16 } else { 8 }
    }

    /// log2 of the entries of an L2 table.
    pub(super) fn l2_bits(&self) -> u32 {
        self.cluster_bits.get() - self.l2_entry_len().trailing_zeros()
    }

    /// log2 of the virtual bytes that one L1 entry covers, at most 39.
    pub(super) fn l1_coverage_bits(&self) -> u32 {
        self.cluster_bits.get() + self.l2_bits()
    }

    /// L1 entries that the virtual disk uses; the rest of the table holds VM state.
    pub(super) fn l1_used(&self) -> u64 {
        self.virtual_size().div_ceil(1 << self.l1_coverage_bits())
    }
}

/// A table as the header gives it, to be checked.
struct Table {
    name: &'static str,
    /// Header fields to blame for the number of entries and for the offset.
    fields: (&'static str, &'static str),
    offset: u64,
    entries: u32,
    entry_len: u64,
    max_len: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_lie_where_the_specification_puts_them() {
        use core::mem::offset_of;
        assert_eq!(size_of::<Fields>(), 112);
        assert_eq!(offset_of!(Fields, incompatible_features), 72);
        assert_eq!(offset_of!(Fields, refcount_order), 96);
        assert_eq!(offset_of!(Fields, header_length), 100);
        assert_eq!(offset_of!(Fields, compression_type), 104);
    }

    #[test]
    fn a_short_head_is_no_qcow2() {
        assert!(!probe(b""));
        assert!(!probe(b"QFI\xfb\0\0"));
        assert!(probe(b"QFI\xfb\0\0\0\x03"));
    }
}

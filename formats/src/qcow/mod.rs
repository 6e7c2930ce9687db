//! qcow, version 1: the format before qcow2, as `qemu-img` reads it. Field names are those of QEMU's `QCowHeader`;
//! checks come in `qemu-img`'s order and in its words.

pub(crate) mod aes;
mod create;
mod write;

use alloc::format;
use alloc::string::String;

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use create::{Create, create};
pub use write::{Target, open};

use crate::access::{Access, check_encryption};
use crate::crypto::DiskCipher;
use crate::reader::{Reader, c_string};
use crate::run::Place;
use crate::two_level::{Geometry, Scheme, TwoLevel};
use crate::{BackingFile, Error, ErrorKind, Extent, Storage};

/// "QFI\xfb".
const MAGIC: u32 = 0x5146_49fb;
const VERSION: u32 = 1;
/// Bits of a cluster's size, and of the size of an L2 table in bytes.
const SIZE_BITS: core::ops::RangeInclusive<u32> = 9..=16;
/// log2 of the length of an entry in bytes.
const ENTRY_BITS: u32 = 3;
/// Most L1 entries: QEMU's limit, a table below 2 GiB.
const L1_ENTRIES_MAX: u64 = i32::MAX as u64 / 8;
/// Longest backing file name in bytes.
const BACKING_NAME_MAX: u32 = 1023;
/// Unit in bytes in which the disk is read.
const SECTOR: u64 = 512;
/// Bit of an L2 entry that tells a compressed cluster.
const COMPRESSED: u64 = 1 << 63;

/// The fields as they lie in the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fields {
    magic: U32,
    version: U32,
    backing_file_offset: U64,
    backing_file_size: U32,
    mtime: U32,
    size: U64,
    cluster_bits: u8,
    l2_bits: u8,
    padding: U16,
    crypt_method: U32,
    l1_table_offset: U64,
}

/// Whether the first bytes of a file are those of a qcow image of version 1.
pub(crate) fn probe(head: &[u8]) -> bool {
    Fields::read_from_prefix(head)
        .is_ok_and(|(fields, _)| fields.magic.get() == MAGIC && fields.version.get() == VERSION)
}

/// An open qcow image of version 1.
#[derive(Debug)]
pub(crate) struct Qcow {
    virtual_size: u64,
    encrypted: bool,
    decryptor: Option<DiskCipher>,
    backing: Option<BackingFile>,
    geometry: Geometry,
    walk: TwoLevel<Clusters>,
}

fn invalid(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFormat, field, message)
}

fn too_large() -> Error {
    Error::new(ErrorKind::Limit, "size", "Image too large")
}

impl Qcow {
    pub(crate) fn open<S: Storage>(
        storage: &mut S,
        access: Access<'_>,
        encryption: Option<&str>,
    ) -> Result<Self, Error> {
        let mut reader = Reader::new(storage);
        let fields: Fields = reader.record()?;
        let cluster_bits = fields.check()?;
        let l2_bits = u32::from(fields.l2_bits);
        let encrypted = match fields.crypt_method.get() {
            0 => false,
            1 => true,
            _ => {
                let message = "invalid encryption method in qcow header";
                return Err(Error::new(ErrorKind::Unsupported, "crypt_method", message));
            }
        };
        check_encryption(encrypted.then_some("aes"), encryption)?;
        let decryptor = match access {
            Access::Data(key) if encrypted => Some(aes::decryptor(key)?),
            _ => None,
        };
        let (size, coverage) = (fields.size.get(), 1u64 << (cluster_bits + l2_bits));
        let l1_entries = match size.checked_add(coverage) {
            None => return Err(too_large()),
            Some(_) => size.div_ceil(coverage),
        };
        if l1_entries > L1_ENTRIES_MAX {
            return Err(too_large());
        }
        let geometry = Geometry {
            l1_offset: fields.l1_table_offset.get(),
            l1_entries,
            l2_bits,
            cluster_bits,
            disk_len: size - size % SECTOR,
        };
        let backing = backing_file(&mut reader, &fields)?;
        let walk = TwoLevel::new(geometry, Clusters { cluster_bits });
        Ok(Self { virtual_size: geometry.disk_len, encrypted, decryptor, backing, geometry, walk })
    }

    /// Length of a cluster in bytes.
    pub(crate) fn cluster_len(&self) -> u64 {
        self.walk.cluster_len()
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    pub(crate) fn encrypted(&self) -> bool {
        self.encrypted
    }

    /// What decrypts the sectors of the disk by their numbers there, if the image was opened with a key.
    pub(crate) fn decryptor(&self) -> Option<&DiskCipher> {
        self.decryptor.as_ref()
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
    /// Checks what does not depend on the rest of the file and gives the bits of the cluster size.
    fn check(&self) -> Result<u32, Error> {
        if self.magic.get() != MAGIC {
            return Err(invalid("magic", "Image not in qcow format"));
        }
        let version = self.version.get();
        if version != VERSION {
            let hint = matches!(version, 2 | 3).then_some("Try the 'qcow2' driver instead.");
            let message = format!("qcow (v1) does not support qcow version {version}");
            return Err(Error::new(ErrorKind::Unsupported, "version", message).hint(hint));
        }
        if self.size.get() <= 1 {
            return Err(invalid("size", "Image size is too small (must be at least 2 bytes)"));
        }
        let cluster_bits = u32::from(self.cluster_bits);
        if !SIZE_BITS.contains(&cluster_bits) {
            return Err(invalid("cluster_bits", "Cluster size must be between 512 and 64k"));
        }
        if !SIZE_BITS.contains(&(u32::from(self.l2_bits) + ENTRY_BITS)) {
            return Err(invalid("l2_bits", "L2 table size must be between 512 and 64k"));
        }
        Ok(cluster_bits)
    }
}

fn backing_file<S: Storage>(
    reader: &mut Reader<'_, S>,
    fields: &Fields,
) -> Result<Option<BackingFile>, Error> {
    let (offset, size) = (fields.backing_file_offset.get(), fields.backing_file_size.get());
    if offset == 0 {
        return Ok(None);
    }
    let Some(length) = usize::try_from(size).ok().filter(|_| size <= BACKING_NAME_MAX) else {
        return Err(invalid("backing_file_size", "Backing file name too long"));
    };
    reader.seek(offset);
    let name = c_string(reader.bytes(length)?);
    Ok((!name.is_empty()).then_some(BackingFile { name, format: None }))
}

/// The meaning of entries.
#[derive(Debug)]
struct Clusters {
    cluster_bits: u32,
}

impl Scheme for Clusters {
    type Entry = U64;

    fn is_table(&self, _: u64) -> bool {
        true
    }

    fn cluster(&self, entry: u64) -> Place {
        match entry {
            0 => Place::Unallocated,
            COMPRESSED.. => {
                let offset_bits = 63 - self.cluster_bits;
                let offset = entry & ((1 << offset_bits) - 1);
                let length = (entry >> offset_bits) & ((1 << self.cluster_bits) - 1);
                Place::Compressed { offset, length }
            }
            // Whoever reads such a cluster is told of an error.
            _ if !entry.is_multiple_of(SECTOR) => Place::Invalid,
            _ => Place::Data(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_second_level() {
        let clusters = Clusters { cluster_bits: 12 };
        assert_eq!(clusters.cluster(0), Place::Unallocated);
        assert_eq!(clusters.cluster(4096), Place::Data(4096));
        assert_eq!(clusters.cluster(4097), Place::Invalid);
        let compressed = COMPRESSED | 0x123 << 51 | 0x77;
        assert_eq!(clusters.cluster(compressed), Place::Compressed { offset: 0x77, length: 0x123 });
    }

    #[test]
    fn a_head_of_version_1_is_qcow() {
        let mut head = [0; 48];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x01");
        assert!(probe(&head));
        head[7] = 2;
        assert!(!probe(&head));
    }
}

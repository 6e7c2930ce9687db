//! Parallels expandable images. Field names are those of the specification (QEMU's `docs/interop/parallels.rst`); checks
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

use crate::block_map::BlockMap;
use crate::reader::Reader;
use crate::run::Place;
use crate::{Error, ErrorKind, Extent, Storage};

/// The older signature: entries count sectors, and the size has 32 bits.
const MAGIC_SECTORS: &[u8; 16] = b"WithoutFreeSpace";
/// The newer signature: entries count clusters.
const MAGIC_CLUSTERS: &[u8; 16] = b"WithouFreSpacExt";
const VERSION: u32 = 2;
const SECTOR: u64 = 512;
/// Most sectors of a cluster: QEMU's limit.
const TRACKS_MAX: u32 = i32::MAX as u32 / 513;
/// Most entries of the BAT: QEMU's limit.
const BAT_ENTRIES_MAX: u32 = i32::MAX as u32 / 4;
/// Length in bytes of the header and the BAT together that QEMU does not read any more.
const TABLES_LIMIT: u64 = 1 << 31;
/// Unit in bytes in which QEMU reads them.
const PAGE: u64 = 4096;
/// Largest disk in bytes: QEMU's limit.
const DISK_MAX: u64 = (1 << 63) - (1 << 30);
/// `ext_off` that is too large: QEMU's limit.
const EXT_OFF_LIMIT: u64 = i64::MAX as u64 / SECTOR;
/// `in_use` while someone writes to an image.
const IN_USE: u32 = 0x746f_6e59;
/// Signature of the format extension.
const EXTENSION_MAGIC: u64 = 0xab23_4cef_23dc_ea87;

/// The fields as they lie in the file; the BAT follows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fields {
    magic: [u8; 16],
    version: U32,
    heads: U32,
    cylinders: U32,
    tracks: U32,
    bat_entries: U32,
    nb_sectors: U64,
    in_use: U32,
    data_off: U32,
    flags: U32,
    ext_off: U64,
}

/// Whether the first bytes of a file are those of a Parallels image.
pub(crate) fn probe(head: &[u8]) -> bool {
    Fields::read_from_prefix(head).is_ok_and(|(fields, _)| fields.is_parallels())
}

/// An open Parallels image.
#[derive(Debug)]
pub(crate) struct Parallels {
    virtual_size: u64,
    /// Bytes that an entry of the BAT counts.
    entry_unit: u64,
    bat: BlockMap<U32>,
}

fn invalid(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFormat, field, message)
}

fn limit(field: &'static str, message: &str) -> Error {
    Error::new(ErrorKind::Limit, field, message)
}

impl Parallels {
    pub(crate) fn open<S: Storage>(storage: &mut S) -> Result<Self, Error> {
        let file_len = storage.len();
        let mut reader = Reader::new(storage);
        let fields: Fields = reader.record()?;
        let bat_entries = fields.check()?;
        check_extension(&mut reader, fields.ext_off.get())?;
        let cluster_len = u64::from(fields.tracks.get()) * SECTOR;
        let in_sectors = fields.magic == *MAGIC_SECTORS;
        let sectors = fields.nb_sectors.get() & if in_sectors { u32::MAX.into() } else { u64::MAX };
        let virtual_size = sectors
            .checked_mul(SECTOR)
            .filter(|&size| size <= DISK_MAX)
            .ok_or_else(|| limit("nb_sectors", "Could not refresh total sector count: File too large"))?;
        let bat_offset = size_of::<Fields>() as u64;
        // Entries past the end of the file are zero, which is to say that nothing is allocated.
        let entries = bat_entries.min(file_len.saturating_sub(bat_offset).div_ceil(4));
        Ok(Self {
            virtual_size,
            entry_unit: if in_sectors { SECTOR } else { cluster_len },
            bat: BlockMap::new(bat_offset, entries, cluster_len, virtual_size),
        })
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Length of a cluster in bytes.
    pub(crate) fn cluster_len(&self) -> u64 {
        self.bat.block_len()
    }

    /// Each entry is a step, and so is the rest.
    pub(crate) fn max_extents(&self) -> u64 {
        self.bat.entries() + 1
    }

    /// `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at<S: Storage>(&mut self, storage: &mut S, offset: u64) -> Result<Extent, Error> {
        let unit = self.entry_unit;
        self.bat.extent_at(storage, offset, |entry| match entry {
            0 => Place::Unallocated,
            // 2^32 clusters of less than 2^31 bytes.
            entry => Place::Data(entry * unit),
        })
    }
}

impl Fields {
    /// Whether the image was not closed.
    fn is_in_use(&self) -> bool {
        self.in_use.get() == IN_USE
    }

    fn is_parallels(&self) -> bool {
        self.version.get() == VERSION && (self.magic == *MAGIC_SECTORS || self.magic == *MAGIC_CLUSTERS)
    }

    /// Checks the fields and gives the number of entries.
    fn check(&self) -> Result<u64, Error> {
        if !self.is_parallels() {
            return Err(invalid("magic", "Image not in Parallels format"));
        }
        match self.tracks.get() {
            0 => return Err(invalid("tracks", "Invalid image: Zero sectors per track")),
            1..=TRACKS_MAX => {}
            _ => return Err(limit("tracks", "Invalid image: Too big cluster")),
        }
        let entries = u64::from(self.bat_entries.get());
        let tables = (size_of::<Self>() as u64 + 4 * entries).next_multiple_of(PAGE);
        if self.bat_entries.get() > BAT_ENTRIES_MAX || tables >= TABLES_LIMIT {
            return Err(limit("bat_entries", "Catalog too large"));
        }
        Ok(entries)
    }
}

/// The format extension holds dirty bitmaps, which are not read: that it is one is all that is checked.
fn check_extension<S: Storage>(reader: &mut Reader<'_, S>, ext_off: u64) -> Result<(), Error> {
    if ext_off == 0 {
        return Ok(());
    }
    if ext_off >= EXT_OFF_LIMIT {
        return Err(invalid("ext_off", "Invalid image: Too big offset"));
    }
    reader.seek(ext_off * SECTOR);
    let magic = reader.record::<U64>()?.get();
    if magic != EXTENSION_MAGIC {
        let message =
            format!("Wrong parallels Format Extension magic: 0x{magic:x}, expected: 0x{EXTENSION_MAGIC:x}");
        return Err(invalid("format extension", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_lie_where_the_specification_puts_them() {
        use core::mem::offset_of;
        assert_eq!(size_of::<Fields>(), 64);
        assert_eq!(offset_of!(Fields, nb_sectors), 36);
        assert_eq!(offset_of!(Fields, ext_off), 56);
    }

    #[test]
    fn the_version_is_part_of_the_signature() {
        let mut head = [0; 64];
        head[..16].copy_from_slice(MAGIC_CLUSTERS);
        assert!(!probe(&head));
        head[16] = 2;
        assert!(probe(&head));
        head[..16].copy_from_slice(MAGIC_SECTORS);
        assert!(probe(&head));
    }
}

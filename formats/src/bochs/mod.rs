//! Bochs' growing disks. Field names are those of Bochs' `hdimage.h`; checks come in `qemu-img`'s order and in its words.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::area::{Visit, visit_tables};
use crate::reader::{Reader, c_string};
use crate::run::{Place, run};
use crate::table::{Entry, Table};
use crate::{Error, ErrorKind, Extent, Storage};

const MAGIC: &[u8] = b"Bochs Virtual HD Image";
const TYPE: &[u8] = b"Redolog";
const SUBTYPE: &[u8] = b"Growing";
const VERSION_1: u32 = 0x0001_0000;
const VERSION_2: u32 = 0x0002_0000;
const SECTOR: u64 = 512;
/// Most entries of the catalog: QEMU's limit.
const CATALOG_MAX: u32 = 1 << 20;
/// Largest extent in bytes: QEMU's limit.
const EXTENT_MAX: u32 = 1 << 23;
/// An entry that points to no extent.
const ENTRY_NONE: u64 = 0xffff_ffff;
/// Entries of the catalog in memory at a time: 64 KiB.
const WINDOW: u64 = 16384;

/// The fields as they lie in the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fields {
    magic: [u8; 32],
    kind: [u8; 16],
    subtype: [u8; 16],
    version: U32,
    header: U32,
    catalog: U32,
    bitmap: U32,
    extent: U32,
    /// A number of 8 bytes for the size of the disk: in version 2 it begins 4 bytes later.
    disk: [u8; 12],
}

/// Whether the first bytes of a file are those of a growing Bochs disk.
pub(crate) fn probe(head: &[u8]) -> bool {
    Fields::read_from_prefix(head).is_ok_and(|(fields, _)| fields.is_growing())
}

/// An open Bochs disk.
#[derive(Debug)]
pub(crate) struct Bochs {
    virtual_size: u64,
    catalog: Table<U32>,
    extent_len: u64,
    /// File offset of the first extent in bytes.
    data_offset: u64,
    /// Sectors of an extent's bitmap, which goes before it.
    bitmap_sectors: u64,
    /// Whether the catalog was found fit to be followed.
    checked: bool,
    /// The bitmap of the extent at hand: its index and a bit for each sector.
    bitmap: Option<(u64, Vec<u8>)>,
}

fn corrupt(message: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "catalog", message)
}

impl Bochs {
    pub(crate) fn open<S: Storage>(storage: &mut S) -> Result<Self, Error> {
        let fields: Fields = Reader::new(storage).record()?;
        let virtual_size = fields.check()?;
        let (header, catalog) = (fields.header.get(), fields.catalog.get());
        let extent_len = u64::from(fields.extent.get());
        let used = virtual_size.div_ceil(extent_len);
        Ok(Self {
            virtual_size,
            catalog: Table::new(header.into(), used, WINDOW),
            extent_len,
            // These two wrap round here as they do in qemu-img.
            data_offset: header.wrapping_add(catalog * 4).into(),
            bitmap_sectors: 1 + u64::from(fields.bitmap.get().wrapping_sub(1)) / SECTOR,
            checked: false,
            bitmap: None,
        })
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Visits the catalog, and the bitmap in front of each extent.
    pub(crate) fn visit_areas<S: Storage>(
        &mut self,
        storage: &mut S,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        self.check(storage)?;
        let bitmap = self.bitmap_sectors * SECTOR;
        let (data_offset, sectors) = (self.data_offset, self.extent_len / SECTOR + self.bitmap_sectors);
        let place = |entry: u64| match entry {
            ENTRY_NONE => 0,
            entry => (entry * SECTOR).saturating_mul(sectors).saturating_add(data_offset),
        };
        visit_tables(storage, &mut self.catalog, ("extent bitmap", bitmap), place, visit)
    }

    /// Each entry of the catalog is a step, or each sector of its extent.
    pub(crate) fn max_extents(&self, file_len: u64) -> u64 {
        let sectors = self.extent_len / SECTOR;
        self.max_allocated(file_len).saturating_mul(sectors).saturating_add(self.catalog.entries())
    }

    /// Two entries never share an extent, and each extent has a bitmap of its own, so a file holds no more than this.
    fn max_allocated(&self, file_len: u64) -> u64 {
        file_len / (self.extent_len / SECTOR).div_ceil(8)
    }

    /// `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at<S: Storage>(&mut self, storage: &mut S, offset: u64) -> Result<Extent, Error> {
        self.check(storage)?;
        let (index, within) = (offset / self.extent_len, offset % self.extent_len);
        let rest = self.virtual_size - offset;
        let entries = self.catalog.from(storage, index)?;
        let entry = entries.first().map_or(ENTRY_NONE, |entry| entry.value());
        if entry == ENTRY_NONE {
            let none = entries.iter().map(|entry| match entry.value() {
                ENTRY_NONE => Place::Zero,
                _ => Place::Invalid,
            });
            let (place, length) = run(none, self.extent_len);
            return place.extent(offset, within, (length - within).min(rest)).ok_or_else(overflow);
        }
        let sectors = self.extent_len / SECTOR + self.bitmap_sectors;
        let start = (entry * SECTOR)
            .checked_mul(sectors)
            .and_then(|start| start.checked_add(self.data_offset))
            .filter(|&start| start <= i64::MAX as u64)
            .ok_or_else(overflow)?;
        self.load_bitmap(storage, index, start)?;
        let bitmap = self.bitmap.as_ref().map_or(&[][..], |(_, bitmap)| bitmap);
        let data = start + self.bitmap_sectors * SECTOR;
        let sectors = (within / SECTOR..self.extent_len / SECTOR).map(|sector| {
            let byte = usize::try_from(sector / 8).ok().and_then(|at| bitmap.get(at)).unwrap_or(&0);
            if byte >> (sector % 8) & 1 != 0 { Place::Data(data + sector * SECTOR) } else { Place::Zero }
        });
        let (place, length) = run(sectors, SECTOR);
        let within = within % SECTOR;
        place.extent(offset, within, (length - within).min(rest)).ok_or_else(overflow)
    }

    /// What must hold before the catalog is followed.
    fn check<S: Storage>(&mut self, storage: &mut S) -> Result<(), Error> {
        if self.checked {
            return Ok(());
        }
        let file_len = storage.len();
        if self.catalog.end() > file_len {
            return Err(corrupt("Catalog lies beyond the end of the file"));
        }
        let max = self.max_allocated(file_len);
        if self.catalog.has_more_than(storage, max, |entry| entry != ENTRY_NONE)? {
            return Err(corrupt("Catalog has more extents than the file has room for"));
        }
        self.checked = true;
        Ok(())
    }

    fn load_bitmap<S: Storage>(&mut self, storage: &mut S, index: u64, offset: u64) -> Result<(), Error> {
        if self.bitmap.as_ref().is_some_and(|&(loaded, _)| loaded == index) {
            return Ok(());
        }
        let length = usize::try_from((self.extent_len / SECTOR).div_ceil(8)).unwrap_or(0);
        let mut bitmap = vec![0; length];
        storage.read_at(offset, &mut bitmap)?;
        self.bitmap = Some((index, bitmap));
        Ok(())
    }
}

fn overflow() -> Error {
    corrupt("Extent lies beyond the largest file")
}

impl Fields {
    fn is_growing(&self) -> bool {
        let is = |field: &[u8], text: &[u8]| field.contains(&0) && c_string(field.to_vec()) == text;
        is(&self.magic, MAGIC)
            && is(&self.kind, TYPE)
            && is(&self.subtype, SUBTYPE)
            && matches!(self.version.get(), VERSION_1 | VERSION_2)
    }

    /// Checks the fields and gives the size of the disk in bytes.
    fn check(&self) -> Result<u64, Error> {
        let invalid = |field, message: &str| Err(Error::new(ErrorKind::InvalidFormat, field, message));
        if !self.is_growing() {
            return invalid("magic", "Image not in Bochs format");
        }
        let skip = if self.version.get() == VERSION_1 { 0 } else { 4 };
        let size = self.disk.get(skip..).and_then(|disk| U64::read_from_prefix(disk).ok());
        let sectors = size.map_or(0, |(size, _)| size.get()) / SECTOR;
        let (catalog, extent) = (self.catalog.get(), self.extent.get());
        if catalog > CATALOG_MAX {
            return Err(Error::new(ErrorKind::Limit, "catalog", "Catalog size is too large"));
        }
        if u64::from(extent) < SECTOR {
            return invalid("extent", "Extent size must be at least 512");
        }
        if !extent.is_power_of_two() {
            return invalid("extent", &format!("Extent size {extent} is not a power of two"));
        }
        if extent > EXTENT_MAX {
            let message = format!("Extent size {extent} is too large");
            return Err(Error::new(ErrorKind::Limit, "extent", message));
        }
        if u64::from(catalog) < sectors.div_ceil(u64::from(extent) / SECTOR) {
            return invalid("catalog", "Catalog size is too small for this disk size");
        }
        Ok(sectors * SECTOR)
    }
}

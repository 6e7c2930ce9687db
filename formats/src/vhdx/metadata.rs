//! Section "Metadata Region": block size, length of the disk, sector size, and the parent's names.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::guid::guid;
use super::parent::ParentLocator;
use super::regions::Span;
use super::{corrupt, invalid};
use crate::reader::Reader;
use crate::{Error, ErrorKind, Storage, StorageMut};

/// Most entries of the metadata table.
const ENTRIES_MAX: u16 = 2047;
/// Bit 2 of an entry's flags: who does not know the item must not read the image.
const REQUIRED: u32 = 1 << 2;
/// Bit 1: the item is of the disk, and not of the file.
const OF_DISK: u32 = 1 << 1;
const SIGNATURE: &[u8; 8] = b"metadata";
/// Offset in a new region of its items.
const ITEMS_OFFSET: u32 = 64 << 10;
/// Bytes of a sector of a new disk.
const SECTOR_SIZE: u32 = 512;
/// Smallest and largest block in bytes.
pub(super) const BLOCK_SIZES: core::ops::RangeInclusive<u32> = 1 << 20..=256 << 20;
/// Longest disk in bytes: 64 TiB.
pub(super) const SIZE_MAX: u64 = 64 << 40;
/// Sectors of a chunk: as many as a block of sector bitmaps has bits.
pub(super) const CHUNK_SECTORS: u64 = 1 << 23;
/// "File Parameters", bit 0: all blocks are in the file and stay there.
const LEAVE_BLOCKS_ALLOCATED: u32 = 1;
/// "File Parameters", bit 1: there is a parent.
const HAS_PARENT: u32 = 1 << 1;
/// Longest item in bytes.
const ITEM_LEN_MAX: u32 = 1 << 20;

const FILE_PARAMETERS: [u8; 16] = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
const VIRTUAL_DISK_SIZE: [u8; 16] = guid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
const VIRTUAL_DISK_ID: [u8; 16] = guid(0xbeca_12ab, 0xb2e6, 0x4523, 0x93ef_c309_e000_c746);
const LOGICAL_SECTOR_SIZE: [u8; 16] = guid(0x8141_bf1d, 0xa96f, 0x4709, 0xba47_f233_a8fa_ab5f);
const PHYSICAL_SECTOR_SIZE: [u8; 16] = guid(0xcda3_48c7, 0x445d, 0x4471, 0x9cc9_e988_5251_c556);
const PARENT_LOCATOR: [u8; 16] = guid(0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c);

/// The items that are known, those first without which there is no disk.
const ITEMS: [(&str, [u8; 16]); 6] = [
    ("FileParameters", FILE_PARAMETERS),
    ("VirtualDiskSize", VIRTUAL_DISK_SIZE),
    ("VirtualDiskId", VIRTUAL_DISK_ID),
    ("LogicalSectorSize", LOGICAL_SECTOR_SIZE),
    ("PhysicalSectorSize", PHYSICAL_SECTOR_SIZE),
    ("ParentLocator", PARENT_LOCATOR),
];

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TableHeader {
    signature: [u8; 8],
    reserved: U16,
    entry_count: U16,
    reserved_end: [u8; 20],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TableEntry {
    item_id: [u8; 16],
    offset: U32,
    length: U32,
    flags: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FileParameters {
    block_size: U32,
    flags: U32,
}

/// What the metadata of a new image says.
#[derive(Clone, Copy, Debug)]
pub(super) struct New {
    pub(super) block_size: u32,
    /// Of the disk, in bytes.
    pub(super) size: u64,
    pub(super) disk_id: [u8; 16],
    pub(super) fixed: bool,
}

/// Writes the metadata of a new image to its region, which begins at `offset`.
pub(super) fn write_new<S: StorageMut>(storage: &mut S, offset: u64, new: New) -> Result<(), Error> {
    let flags = if new.fixed { LEAVE_BLOCKS_ALLOCATED } else { 0 };
    let parameters = [new.block_size.to_le_bytes(), flags.to_le_bytes()].concat();
    let values: [(_, _, &[u8]); 5] = [
        (FILE_PARAMETERS, REQUIRED, &parameters),
        (VIRTUAL_DISK_SIZE, REQUIRED | OF_DISK, &new.size.to_le_bytes()),
        (VIRTUAL_DISK_ID, REQUIRED | OF_DISK, &new.disk_id),
        (LOGICAL_SECTOR_SIZE, REQUIRED | OF_DISK, &SECTOR_SIZE.to_le_bytes()),
        (PHYSICAL_SECTOR_SIZE, REQUIRED | OF_DISK, &SECTOR_SIZE.to_le_bytes()),
    ];
    let header = TableHeader {
        signature: *SIGNATURE,
        reserved: U16::ZERO,
        entry_count: 5.into(),
        reserved_end: [0; 20],
    };
    let (mut table, mut items) = (header.as_bytes().to_vec(), Vec::new());
    for (item_id, flags, value) in values {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let offset = u32::try_from(items.len()).unwrap_or(u32::MAX).saturating_add(ITEMS_OFFSET);
        let entry = TableEntry {
            item_id,
            offset: offset.into(),
            length: length.into(),
            flags: flags.into(),
            reserved: U32::ZERO,
        };
        table.extend_from_slice(entry.as_bytes());
        items.extend_from_slice(value);
    }
    storage.write_at(offset, &table)?;
    Ok(storage.write_at(offset + u64::from(ITEMS_OFFSET), &items)?)
}

/// The metadata, every number within its limits.
#[derive(Clone, Debug)]
pub struct Metadata {
    block_size: u32,
    sector_size: u32,
    virtual_size: u64,
    parent: Option<ParentLocator>,
}

impl Metadata {
    pub(super) fn read<S: Storage>(storage: &mut S, region: Span) -> Result<Self, Error> {
        let items = Items::read(storage, region)?;
        let parameters: FileParameters = items.value(storage, region, FILE_PARAMETERS)?;
        let has_parent = parameters.flags.get() & HAS_PARENT != 0;
        let parent = match (has_parent, items.find(PARENT_LOCATOR)) {
            (false, None) => None,
            (true, Some(entry)) => Some(locator(storage, region, entry)?),
            (true, None) => {
                return Err(invalid("ParentLocator", "Differencing disk does not name its parent"));
            }
            (false, Some(_)) => {
                return Err(invalid("ParentLocator", "Disk that has no parent names one"));
            }
        };
        let block_size = parameters.block_size.get();
        if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
            return Err(invalid("BlockSize", format!("Invalid block size {block_size}")));
        }
        let sector_size: U32 = items.value(storage, region, LOGICAL_SECTOR_SIZE)?;
        let sector_size = sector_size.get();
        if sector_size != 512 && sector_size != 4096 {
            return Err(invalid("LogicalSectorSize", format!("Invalid sector size {sector_size}")));
        }
        let size: U64 = items.value(storage, region, VIRTUAL_DISK_SIZE)?;
        if size.get() > SIZE_MAX {
            return Err(Error::new(ErrorKind::Limit, "VirtualDiskSize", "Disk is larger than 64 TiB"));
        }
        let virtual_size = size.get() & !u64::from(sector_size - 1);
        Ok(Self { block_size, sector_size, virtual_size, parent })
    }

    /// Size of a block in bytes: a power of two from 1 MiB to 256 MiB.
    pub fn block_size(&self) -> u64 {
        u64::from(self.block_size)
    }

    /// Size of a sector of the virtual disk in bytes: 512 or 4096.
    pub fn logical_sector_size(&self) -> u64 {
        u64::from(self.sector_size)
    }

    /// Size of the virtual disk in bytes: whole sectors, at most 64 TiB.
    pub fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// How a differencing image knows its parent.
    pub fn parent_locator(&self) -> Option<&ParentLocator> {
        self.parent.as_ref()
    }

    /// Blocks of the virtual disk.
    pub(super) fn blocks(&self) -> u64 {
        self.virtual_size.div_ceil(self.block_size())
    }

    /// Blocks whose sectors share one block of sector bitmaps: a power of two, at least 16.
    pub(super) fn chunk_ratio(&self) -> u64 {
        CHUNK_SECTORS * self.logical_sector_size() / self.block_size()
    }

    /// Entries of the block allocation table: one a block and, behind each whole chunk, one for its sector bitmap. With
    /// a parent the last chunk is whole.
    pub(super) fn bat_entries(&self) -> u64 {
        let (blocks, ratio) = (self.blocks(), self.chunk_ratio());
        match self.parent {
            Some(_) => blocks.div_ceil(ratio) * (ratio + 1),
            None => blocks + blocks.saturating_sub(1) / ratio,
        }
    }
}

/// Where the known items are.
struct Items([Option<TableEntry>; ITEMS.len()]);

impl Items {
    /// Section "Metadata Table".
    fn read<S: Storage>(storage: &mut S, region: Span) -> Result<Self, Error> {
        let mut reader = Reader::new(storage);
        reader.seek(region.start);
        let header: TableHeader = reader.record()?;
        if header.signature != *SIGNATURE {
            return Err(invalid("metadata table", "Invalid metadata table signature"));
        }
        if header.entry_count.get() > ENTRIES_MAX {
            return Err(Error::new(ErrorKind::Limit, "EntryCount", "Metadata table has too many entries"));
        }
        let mut items = [None; ITEMS.len()];
        for _ in 0..header.entry_count.get() {
            let entry: TableEntry = reader.record()?;
            let known = ITEMS.iter().zip(&mut items).find(|((_, id), _)| *id == entry.item_id);
            if let Some(((name, _), item)) = known {
                if item.replace(entry).is_some() {
                    return Err(invalid(name, format!("Metadata table has two entries for {name}")));
                }
            } else if entry.flags.get() & REQUIRED != 0 {
                let message = "Image has a required metadata item that is not known";
                return Err(Error::new(ErrorKind::Unsupported, "metadata table", message));
            }
        }
        let needed = ITEMS.iter().zip(&items).take(ITEMS.len() - 1);
        if let Some(((name, _), _)) = needed.into_iter().find(|(_, item)| item.is_none()) {
            return Err(invalid(name, format!("Metadata table has no entry for {name}")));
        }
        Ok(Self(items))
    }

    fn find(&self, id: [u8; 16]) -> Option<TableEntry> {
        self.0.iter().flatten().find(|entry| entry.item_id == id).copied()
    }

    /// The value of an item. It is as long as it must be, whatever the table says: so QEMU has it.
    fn value<S: Storage, T: FromBytes + IntoBytes>(
        &self,
        storage: &mut S,
        region: Span,
        id: [u8; 16],
    ) -> Result<T, Error> {
        let mut value = T::new_zeroed();
        let offset = self.find(id).map_or(0, |entry| u64::from(entry.offset.get()));
        let offset = inside(region, offset, size_of::<T>() as u64)?;
        storage.read_at(offset, value.as_mut_bytes())?;
        Ok(value)
    }
}

/// The file offset of a part of the metadata region.
fn inside(region: Span, offset: u64, length: u64) -> Result<u64, Error> {
    if offset.saturating_add(length) > region.len() {
        return Err(corrupt("metadata table", "Metadata item lies outside the metadata region"));
    }
    Ok(region.start + offset)
}

fn locator<S: Storage>(storage: &mut S, region: Span, entry: TableEntry) -> Result<ParentLocator, Error> {
    if entry.length.get() > ITEM_LEN_MAX {
        return Err(Error::new(ErrorKind::Limit, "ParentLocator", "Parent locator is too long"));
    }
    let offset = inside(region, u64::from(entry.offset.get()), u64::from(entry.length.get()))?;
    let mut bytes = vec![0; usize::try_from(entry.length.get()).unwrap_or(0)];
    storage.read_at(offset, &mut bytes)?;
    ParentLocator::parse(&bytes)
}

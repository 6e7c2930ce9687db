//! Section "BAT": from virtual offsets to extents.

use alloc::format;

use zerocopy::little_endian::U64;

use super::metadata::Metadata;
use super::overlay::{Overlay, Replayed};
use super::regions::{Regions, Span};
use super::{MIB, corrupt};
use crate::sector_bitmap::{BitOrder, SectorBitmap};
use crate::table::Table;
use crate::{Access, Error, ErrorKind, Extent, ExtentKind, Storage};

/// Bits 0 to 2 of an entry: the state of its block.
pub(super) const STATE: u64 = 7;
/// Bits 20 to 63: file offset of the block, a whole MiB.
pub(super) const OFFSET: u64 = !(MIB - 1);
/// Entries in memory at a time: 64 KiB.
pub(super) const WINDOW: u64 = 8192;
/// Length of a block of sector bitmaps in bytes.
const BITMAP_LEN: u64 = MIB;

/// States of a payload block.
const NOT_PRESENT: u64 = 0;
pub(super) const FULLY_PRESENT: u64 = 6;
pub(super) const PARTIALLY_PRESENT: u64 = 7;
/// State of a block of sector bitmaps that is there.
const BITMAP_PRESENT: u64 = 6;

/// The block allocation table and what it was found to hold.
#[derive(Debug)]
pub(super) struct Walk {
    table: Table<U64>,
    bitmap: SectorBitmap,
    /// Number of the chunk whose bitmap was last looked at, and its entry.
    chunk: Option<(u64, u64)>,
    /// Blocks that are in the file, whole or in part.
    present: u64,
}

/// Where things are in the image.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) regions: &'a Regions,
    pub(super) overlay: &'a Overlay,
}

/// What an entry says of its block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Unallocated,
    Zero,
    Data(u64),
    Partial(u64),
}

impl Walk {
    /// Looks through the whole table, as QEMU does when it opens an image, but to check it.
    pub(super) fn open<S: Storage>(
        storage: &mut Replayed<'_, S>,
        place: Place<'_>,
        access: Access<'_>,
    ) -> Result<Self, Error> {
        let Place { metadata, regions, .. } = place;
        let count = metadata.bat_entries();
        if count > regions.bat.len() / size_of::<U64>() as u64 {
            return Err(corrupt("BAT", "Block allocation table is too small for the disk"));
        }
        let mut table = Table::<U64>::new(regions.bat.start, count, WINDOW);
        if table.end() > storage.len() {
            return Err(corrupt("BAT", "Block allocation table lies beyond the end of the file"));
        }
        let ratio = metadata.chunk_ratio();
        let (mut index, mut present) = (0, 0);
        let to_look_at = if matches!(access, Access::Check) { 0 } else { count };
        while index < to_look_at {
            let in_hole = table.in_hole(storage, index)?;
            if in_hole > 0 {
                index += in_hole;
                continue;
            }
            let file_len = storage.len();
            let entries = table.from(storage, index)?;
            for (index, entry) in (index..).zip(entries) {
                let (state, block) = (entry.get() & STATE, index - index / (ratio + 1));
                if index % (ratio + 1) == ratio || block >= metadata.blocks() {
                    continue;
                }
                if state == FULLY_PRESENT {
                    check_payload(place, file_len, index, block, entry.get() & OFFSET)?;
                }
                present += u64::from(state >= FULLY_PRESENT);
            }
            index += entries.len() as u64;
        }
        Ok(Self { table, bitmap: SectorBitmap::new(BitOrder::LeastSignificantFirst), chunk: None, present })
    }

    /// Every block is a step, and each sector of a block that is there in part.
    pub(super) fn max_extents(&self, metadata: &Metadata) -> u64 {
        let sectors = match metadata.parent_locator() {
            None => 0,
            Some(_) => self.present.saturating_mul(metadata.block_size() / metadata.logical_sector_size()),
        };
        metadata.blocks().saturating_add(sectors)
    }

    /// `offset` is below the virtual size.
    pub(super) fn extent_at<S: Storage>(
        &mut self,
        storage: &mut S,
        place: Place<'_>,
        offset: u64,
    ) -> Result<Extent, Error> {
        let Place { metadata, overlay, .. } = place;
        let mut storage = Replayed::new(storage, overlay);
        let file_len = storage.len();
        let (block_size, ratio) = (metadata.block_size(), metadata.chunk_ratio());
        if self.present > file_len.div_ceil(block_size) {
            let message = "Block allocation table has more entries than the file has blocks";
            return Err(corrupt("BAT", message));
        }
        let (block, within) = (offset / block_size, offset % block_size);
        let rest = metadata.virtual_size() - offset;
        let index = block + block / ratio;
        let entries = self.table.from(&mut storage, index)?;
        let mut payload = (index..)
            .zip(entries)
            .filter(|(index, _)| index % (ratio + 1) != ratio)
            .map(|(_, entry)| entry.get());
        let entry = payload.next().unwrap_or(0);
        let first = decode(place, index, entry)?;
        let mut blocks = 1;
        match first {
            Block::Partial(place_in_file) => {
                check_block(place, file_len, index, block, place_in_file)?;
                return self.partial(&mut storage, place, offset, place_in_file);
            }
            Block::Data(start) => {
                check_block(place, file_len, index, block, start)?;
                let follows = |number: u64, entry: u64| {
                    let next = start.checked_add(number.checked_mul(block_size)?)?;
                    let block = block + number;
                    let index = block + block / ratio;
                    (entry & STATE == FULLY_PRESENT && entry & OFFSET == next)
                        .then(|| check_block(place, file_len, index, block, next).ok())?
                };
                let more = (1..).zip(payload).take_while(|&(number, entry)| follows(number, entry).is_some());
                blocks += more.count() as u64;
            }
            Block::Unallocated | Block::Zero => {
                let more = payload.take_while(|entry| decode(place, index, *entry).ok() == Some(first));
                blocks += more.count() as u64;
            }
        }
        let length = blocks.saturating_mul(block_size).saturating_sub(within).min(rest);
        let kind = match first {
            Block::Unallocated => ExtentKind::Unallocated { offset: None },
            Block::Zero => ExtentKind::Zero { offset: None },
            Block::Data(start) | Block::Partial(start) => ExtentKind::Data { offset: start + within },
        };
        Ok(Extent::own(offset, length, kind))
    }

    /// Section "Sector Bitmap Blocks": the run at `offset` in a block at `start` whose bitmap decides.
    fn partial<S: Storage>(
        &mut self,
        storage: &mut Replayed<'_, S>,
        place: Place<'_>,
        offset: u64,
        start: u64,
    ) -> Result<Extent, Error> {
        let Place { metadata, regions, .. } = place;
        let (block_size, ratio) = (metadata.block_size(), metadata.chunk_ratio());
        let sector_size = metadata.logical_sector_size();
        let (block, within) = (offset / block_size, offset % block_size);
        let chunk = block / ratio;
        let index = chunk * (ratio + 1) + ratio;
        let entry = match self.chunk {
            Some((number, entry)) if number == chunk => entry,
            _ => self.table.from(storage, index)?.first().map_or(0, |entry| entry.get()),
        };
        self.chunk = Some((chunk, entry));
        let bitmap = entry & OFFSET;
        let end = bitmap.saturating_add(BITMAP_LEN);
        if entry & STATE != BITMAP_PRESENT || bitmap < MIB || end > storage.len() {
            let message = format!("Sector bitmap of block {block} is not in the file (BAT entry {index})");
            return Err(corrupt("BAT", message));
        }
        regions.check_free(Span { start: bitmap, end })?;
        let length = (block_size - within).min(metadata.virtual_size() - offset);
        let sectors = (within + length).div_ceil(sector_size) - within / sector_size;
        let first = block % ratio * (block_size / sector_size) + within / sector_size;
        let (here, same) = self.bitmap.run(storage, bitmap, first, sectors)?;
        let length = same.saturating_mul(sector_size).saturating_sub(within % sector_size).min(length);
        let kind = if here {
            ExtentKind::Data { offset: start + within }
        } else {
            ExtentKind::Unallocated { offset: None }
        };
        Ok(Extent::own(offset, length, kind))
    }
}

/// Section "Payload BAT Entry States". What is undefined or no longer in use reads as zeros in QEMU.
fn decode(place: Place<'_>, index: u64, entry: u64) -> Result<Block, Error> {
    let differencing = place.metadata.parent_locator().is_some();
    match entry & STATE {
        NOT_PRESENT if differencing => Ok(Block::Unallocated),
        NOT_PRESENT | 1 | 2 | 3 | 5 => Ok(Block::Zero),
        FULLY_PRESENT => Ok(Block::Data(entry & OFFSET)),
        PARTIALLY_PRESENT if differencing => Ok(Block::Partial(entry & OFFSET)),
        PARTIALLY_PRESENT => {
            let message = format!("Block is there in part but the disk has no parent (BAT entry {index})");
            Err(corrupt("BAT", message))
        }
        state => Err(corrupt("BAT", format!("Invalid block state {state} (BAT entry {index})"))),
    }
}

/// A block is in the file and apart from regions and log. The last one may be cut short: QEMU once made such images.
fn check_payload(place: Place<'_>, file_len: u64, index: u64, block: u64, start: u64) -> Result<(), Error> {
    let block_size = place.metadata.block_size();
    let length =
        block_size.min(place.metadata.virtual_size().saturating_sub(block.saturating_mul(block_size)));
    if start > i64::MAX as u64 - block_size {
        return Err(corrupt("BAT", format!("VHDX BAT entry {index} offset overflow.")));
    }
    // As QEMU counts it, in whole sectors.
    let file_end = file_len.next_multiple_of(512);
    let truncated = |which, offset| {
        let message = format!(
            "VHDX BAT entry {index} {which} offset {offset} points after end of file ({file_end}). Image has probably been truncated."
        );
        Err(corrupt("BAT", message))
    };
    if start >= file_end {
        return truncated("start", start);
    }
    if start + length > file_end {
        return truncated("end", start + length - 1);
    }
    place.regions.check_free(Span { start, end: start + block_size })
}

/// As [`check_payload`], and apart from the header section and from what the log changes: what is in the log cannot be
/// pointed to, and no writer logs the data of the disk.
fn check_block(place: Place<'_>, file_len: u64, index: u64, block: u64, start: u64) -> Result<(), Error> {
    check_payload(place, file_len, index, block, start)?;
    if start < MIB {
        return Err(corrupt("BAT", format!("Block overlaps the header section (BAT entry {index})")));
    }
    if place.overlay.touches(start, start + place.metadata.block_size()) {
        let message = format!("Log changes the data of a block (BAT entry {index})");
        return Err(Error::new(ErrorKind::Unsupported, "log", message));
    }
    Ok(())
}

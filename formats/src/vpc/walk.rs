//! Section "Block Allocation Table and Data Blocks": from virtual offsets to extents.

use alloc::format;
use alloc::string::String;

use zerocopy::big_endian::U32;

use super::SECTOR;
use super::footer::{FOOTER_LEN, file_len};
use super::header::{DynamicHeader, HEADER_LEN};
use crate::sector_bitmap::{BitOrder, SectorBitmap};
use crate::table::Table;
use crate::{Access, Error, ErrorKind, Extent, ExtentKind, Storage};

/// Entries in memory at a time: 64 KiB.
pub(super) const WINDOW: u64 = 16384;

/// The entry of a block that is not in the file.
pub(super) const UNUSED: u32 = u32::MAX;

/// The block allocation table and what it was found to hold.
#[derive(Debug)]
pub(super) struct Walk {
    table: Table<U32>,
    /// Bitmaps of a differencing image. In others a block is all there, whatever its bitmap says: so QEMU reads them.
    bitmap: Option<SectorBitmap>,
    /// Entries that point to a block, of those that the disk uses.
    allocated: u64,
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, "BAT", message)
}

impl Walk {
    /// Looks through the whole table, as QEMU does when it opens an image, but to check it: a block that is not in the file makes the
    /// image one that was cut off.
    pub(super) fn open<S: Storage>(
        storage: &mut S,
        header: &DynamicHeader,
        virtual_size: u64,
        differencing: bool,
        access: Access<'_>,
    ) -> Result<Self, Error> {
        let file_len = file_len(storage);
        let mut table = Table::<U32>::new(header.table_offset(), header.table_entries(), WINDOW);
        if table.end().next_multiple_of(SECTOR) > file_len {
            return Err(truncated());
        }
        let used = virtual_size.div_ceil(header.block_size());
        let highest = (file_len.checked_sub(header.stored_block_len())).map(|offset| offset / SECTOR);
        let (mut index, mut allocated) = (0, 0);
        let to_look_at = if matches!(access, Access::Check) { 0 } else { table.entries() };
        while index < to_look_at {
            let in_hole = table.in_hole(storage, index)?;
            if in_hole > 0 {
                if highest.is_none() {
                    return Err(truncated());
                }
                allocated += in_hole.min(used.saturating_sub(index));
                index += in_hole;
                continue;
            }
            let entries = table.from(storage, index)?;
            for entry in entries.iter().map(|entry| entry.get()).filter(|&entry| entry != UNUSED) {
                if highest.is_none_or(|highest| u64::from(entry) > highest) {
                    return Err(truncated());
                }
            }
            let in_use = usize::try_from(used.saturating_sub(index)).unwrap_or(usize::MAX);
            allocated += entries.iter().take(in_use).filter(|entry| entry.get() != UNUSED).count() as u64;
            index += entries.len() as u64;
        }
        let bitmap = differencing.then(|| SectorBitmap::new(BitOrder::MostSignificantFirst));
        Ok(Self { table, bitmap, allocated })
    }

    /// Every block is a step, and in a differencing image each sector of a block that is there.
    pub(super) fn max_extents(&self, header: &DynamicHeader, file_len: u64, virtual_size: u64) -> u64 {
        let blocks = virtual_size.div_ceil(header.block_size());
        match self.bitmap {
            None => blocks,
            Some(_) => {
                let stored = file_len / header.stored_block_len() + 1;
                blocks.saturating_add(stored.saturating_mul(header.block_size() / SECTOR))
            }
        }
    }

    /// `offset` is below `virtual_size`.
    pub(super) fn extent_at<S: Storage>(
        &mut self,
        storage: &mut S,
        header: &DynamicHeader,
        virtual_size: u64,
        offset: u64,
    ) -> Result<Extent, Error> {
        check_table(header)?;
        let file_len = file_len(storage);
        if self.allocated > file_len / header.stored_block_len() {
            return Err(corrupt("Block allocation table has more entries than the file has blocks"));
        }
        let block_size = header.block_size();
        let (index, within) = (offset / block_size, offset % block_size);
        let rest = virtual_size - offset;
        let entries = self.table.from(storage, index)?;
        let entry = entries.first().map_or(UNUSED, |entry| entry.get());
        if entry == UNUSED {
            let blocks = entries.iter().take_while(|entry| entry.get() == UNUSED).count().max(1) as u64;
            let length = blocks.saturating_mul(block_size).saturating_sub(within).min(rest);
            let kind = match self.bitmap {
                Some(_) => ExtentKind::Unallocated { offset: None },
                None => ExtentKind::Zero { offset: None },
            };
            return Ok(Extent::own(offset, length, kind));
        }
        let place = u64::from(entry) * SECTOR;
        check_place(header, file_len, index, place)?;
        let length = (block_size - within).min(rest);
        let data = ExtentKind::Data { offset: place + header.bitmap_len() + within };
        let Some(bitmap) = &mut self.bitmap else { return Ok(Extent::own(offset, length, data)) };
        let sectors = (within + length).div_ceil(SECTOR) - within / SECTOR;
        let (here, same) = bitmap.run(storage, place, within / SECTOR, sectors)?;
        let length = same.saturating_mul(SECTOR).saturating_sub(within % SECTOR).min(length);
        Ok(Extent::own(offset, length, if here { data } else { ExtentKind::Unallocated { offset: None } }))
    }
}

/// What is not a block: its name, file offset and length in bytes.
pub(super) fn headers(header: &DynamicHeader) -> [(&'static str, u64, u64); 2] {
    [("the copy of the footer", 0, FOOTER_LEN), ("the dynamic disk header", header.offset(), HEADER_LEN)]
}

/// The table is a table, and not a header by another name.
fn check_table(header: &DynamicHeader) -> Result<(), Error> {
    let end = header.table_offset() + header.table_len();
    for (what, start, length) in headers(header) {
        if header.table_offset() < start + length && start < end {
            return Err(corrupt(format!("Block allocation table overlaps {what}")));
        }
    }
    Ok(())
}

/// A block is in the file and apart from everything else in it that is not a block.
pub(super) fn check_place(
    header: &DynamicHeader,
    file_len: u64,
    index: u64,
    place: u64,
) -> Result<(), Error> {
    let end = place + header.stored_block_len();
    if end > file_len {
        return Err(truncated());
    }
    let table = ("the block allocation table", header.table_offset(), header.table_len());
    for (what, start, length) in headers(header).into_iter().chain([table]) {
        if place < start + length && start < end {
            return Err(corrupt(format!("Block {index} at offset {place:#x} overlaps {what}")));
        }
    }
    Ok(())
}

fn truncated() -> Error {
    corrupt("block-vpc: free_data_block_offset points after the end of file. The image has been truncated.")
}

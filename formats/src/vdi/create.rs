//! New images, as `qemu-img create` makes them.

use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::header::{self, BLOCK_LEN, BLOCKS_MAX, MAP_OFFSET};
use super::write::Target;
use crate::storage::fill;
use crate::{Error, ErrorKind, StorageMut};

/// Unit in bytes of the size of the disk and of the map.
const SECTOR: u64 = 512;
/// Entries of the map that are written at once.
const CHUNK: u32 = 1 << 18;

/// What a new VDI image is to be.
#[derive(Clone, Copy, Debug)]
pub struct Create {
    /// Size of the disk in bytes, rounded up to a sector of 512: at most 0x1fff_ff80 blocks of 1 MiB.
    pub size: u64,
    /// Whether all blocks are in the file from the start.
    pub is_static: bool,
    /// `uuidCreate`.
    pub uuid: [u8; 16],
    /// `uuidModify`.
    pub uuid_last_snapshot: [u8; 16],
}

/// Makes `storage`, an empty file, a VDI image of zeros.
///
/// # Errors
///
/// A disk that is too long, and failures of the storage.
pub fn create<S: StorageMut>(mut storage: S, create: &Create) -> Result<Target<S>, Error> {
    let size = create.size.checked_next_multiple_of(SECTOR).unwrap_or(u64::MAX);
    let blocks = size.div_ceil(BLOCK_LEN);
    let map_len = (blocks * 4).next_multiple_of(SECTOR);
    let offset_data = u32::try_from(u64::from(MAP_OFFSET) + map_len);
    let (Ok(blocks), Ok(offset_data), ..=BLOCKS_MAX) = (u32::try_from(blocks), offset_data, blocks) else {
        let most = BLOCKS_MAX * BLOCK_LEN;
        let message =
            alloc::format!("Unsupported VDI image size (size is {size:#x}, max supported is {most:#x})");
        return Err(Error::new(ErrorKind::Limit, "cbDisk", message));
    };
    storage.write_at(0, header::new(create, size, blocks, offset_data).as_bytes())?;
    let entries_len = u64::from(blocks) * 4;
    if create.is_static {
        let mut first = 0;
        while first < blocks {
            let end = blocks.min(first.saturating_add(CHUNK));
            let entries: Vec<u8> = (first..end).flat_map(u32::to_le_bytes).collect();
            storage.write_at(u64::from(MAP_OFFSET) + u64::from(first) * 4, &entries)?;
            first = end;
        }
    } else {
        fill(&mut storage, MAP_OFFSET.into(), entries_len, 0xff)?;
    }
    let stored = if create.is_static { u64::from(blocks) * BLOCK_LEN } else { 0 };
    storage.set_length(u64::from(offset_data) + stored)?;
    Target::open(storage, true)
}

//! New images, as `qemu-img create` makes them.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::header::{self, Guids};
use super::metadata::{self, BLOCK_SIZES, CHUNK_SECTORS, SIZE_MAX};
use super::regions;
use super::walk::FULLY_PRESENT;
use super::write::Target;
use super::{MIB, invalid};
use crate::{Error, ErrorKind, StorageMut};

/// Unit of the size of the disk, in bytes.
const SECTOR: u64 = 512;
/// Length of the metadata region.
const METADATA_LEN: u32 = 1 << 20;
/// From the end of the BAT to the first block: the metadata region, and what is left free for it to grow.
const BEFORE_BLOCKS: u64 = 5 * MIB;
/// State of a block that is known to be zeros.
const ZERO: u64 = 2;
/// Entries of the BAT that are written at once.
const CHUNK: u64 = 1 << 17;

/// What a new VHDX image is to be.
#[derive(Clone, Copy, Debug)]
pub struct Create<'a> {
    /// Size of the disk in bytes, rounded up to a sector of 512: at most 64 TiB.
    pub size: u64,
    /// Whether all blocks are in the file from the start.
    pub fixed: bool,
    /// Size of a block in bytes: a power of two from 1 MiB to 256 MiB.
    pub block_size: u32,
    /// Size of the log in bytes: whole MiB, at least one.
    pub log_size: u32,
    /// Whether new blocks are said to be zeros. `qemu-img` says so of a fixed image's, too, so that they are given another place
    /// when they are written.
    pub block_state_zero: bool,
    /// "Creator": the program that makes the image.
    pub creator: &'a str,
    /// "SequenceNumber" of the first header.
    pub sequence_number: u64,
    /// Of this first session.
    pub guids: Guids,
    /// "VirtualDiskId".
    pub disk_id: [u8; 16],
}

/// Makes `storage`, an empty file, a VHDX image of zeros.
///
/// # Errors
///
/// A disk that is too long, sizes that are out of range, and failures of the storage.
pub fn create<S: StorageMut>(mut storage: S, create: &Create<'_>) -> Result<Target<S>, Error> {
    let size =
        create.size.checked_next_multiple_of(SECTOR).filter(|&size| size <= SIZE_MAX).ok_or_else(|| {
            Error::new(ErrorKind::Limit, "VirtualDiskSize", "Image size too large; max of 64TB")
        })?;
    if !create.block_size.is_power_of_two() || !BLOCK_SIZES.contains(&create.block_size) {
        return Err(invalid("BlockSize", alloc::format!("Invalid block size {}", create.block_size)));
    }
    if create.log_size == 0 || !u64::from(create.log_size).is_multiple_of(MIB) {
        return Err(invalid("LogLength", "Log length is not a multiple of 1 MiB"));
    }
    let block_size = u64::from(create.block_size);
    let blocks = size.div_ceil(block_size);
    let ratio = CHUNK_SECTORS * SECTOR / block_size;
    // An entry a block, and one a chunk but for the last. QEMU has the number of blocks less one wrap at 2^32.
    let others = blocks.checked_sub(1).unwrap_or(u32::MAX.into()) / ratio;
    let bat_length = ((blocks + others) * 8).next_multiple_of(MIB);
    let bat_offset = MIB + u64::from(create.log_size);
    let metadata_offset = bat_offset + bat_length;
    let bat_length = u32::try_from(bat_length)
        .map_err(|_| Error::new(ErrorKind::Limit, "BAT", "Block allocation table is too long"))?;

    let creator: Vec<u8> = create.creator.encode_utf16().take(255).flat_map(u16::to_le_bytes).collect();
    let (sequence_number, guids) = (create.sequence_number, create.guids);
    let new = header::New { sequence_number, guids, log_length: create.log_size };
    header::write_new(&mut storage, &creator, new)?;
    regions::write_new(&mut storage, (bat_offset, bat_length), (metadata_offset, METADATA_LEN))?;
    let new =
        metadata::New { block_size: create.block_size, size, disk_id: create.disk_id, fixed: create.fixed };
    metadata::write_new(&mut storage, metadata_offset, new)?;
    let first = metadata_offset + BEFORE_BLOCKS;
    let entry = |block: u64| match (create.block_state_zero, create.fixed) {
        (true, _) => ZERO,
        (false, true) => (first + block * block_size) | FULLY_PRESENT,
        (false, false) => 0,
    };
    if create.block_state_zero || create.fixed {
        write_bat(&mut storage, bat_offset, blocks, ratio, entry)?;
    }
    storage.set_length(first + if create.fixed { size } else { 0 })?;
    Target::of_new(storage)
}

/// Writes the entries of the blocks, `ratio` of them to a chunk.
fn write_bat<S: StorageMut>(
    storage: &mut S,
    offset: u64,
    blocks: u64,
    ratio: u64,
    entry: impl Fn(u64) -> u64,
) -> Result<(), Error> {
    let entries = blocks + blocks.saturating_sub(1) / ratio;
    let mut start = 0;
    while start < entries {
        let end = entries.min(start + CHUNK);
        let mut part = vec![U64::ZERO; usize::try_from(end - start).unwrap_or(0)];
        for (index, place) in (start..).zip(&mut part) {
            if index % (ratio + 1) != ratio {
                place.set(entry(index - index / (ratio + 1)));
            }
        }
        storage.write_at(offset + start * 8, part.as_bytes())?;
        start = end;
    }
    Ok(())
}

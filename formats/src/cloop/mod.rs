//! cloop, version 2.0: a disk of compressed blocks behind a shell script. Field names are those of `cloop.h`; checks come
//! in `qemu-img`'s order and in its words.

use alloc::format;
use alloc::string::String;

use zerocopy::big_endian::{U32, U64};

use crate::reader::Reader;
use crate::table::{Entry, Table};
use crate::{Error, ErrorKind, Extent, ExtentKind, Storage};

/// The script that an image begins with.
const SCRIPT: &[u8] =
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
/// Where the numbers begin, in bytes.
const HEADER_OFFSET: u64 = 128;
/// Where the offsets begin, in bytes.
const OFFSETS: u64 = HEADER_OFFSET + 8;
const SECTOR: u32 = 512;
/// Largest block in bytes: QEMU's limit.
const BLOCK_LEN_MAX: u32 = 64 << 20;
/// Largest compressed block in bytes: QEMU's limit.
const COMPRESSED_LEN_MAX: u64 = 2 * BLOCK_LEN_MAX as u64;
/// Most blocks whose offsets can be counted in bytes with 32 bits.
const BLOCKS_MAX: u32 = (u32::MAX - 1) / 8;
/// Longest table of offsets in bytes: QEMU's limit.
const OFFSETS_LEN_MAX: u64 = 512 << 20;
/// Offsets in memory at a time: 64 KiB.
const WINDOW: u64 = 8192;

/// Whether the first bytes of a file are those of a cloop image.
pub(crate) fn probe(head: &[u8]) -> bool {
    head.starts_with(SCRIPT)
}

/// An open cloop image.
#[derive(Debug)]
pub(crate) struct Cloop {
    block_len: u64,
    blocks: u64,
    /// One more than there are blocks, in order; all in the file.
    offsets: Table<U64>,
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, "offsets", message)
}

impl Cloop {
    pub(crate) fn open<S: Storage>(storage: &mut S) -> Result<Self, Error> {
        let mut reader = Reader::new(storage);
        reader.seek(HEADER_OFFSET);
        let block_len = reader.record::<U32>()?.get();
        let blocks = reader.record::<U32>()?.get();
        check_header(block_len, blocks)?;
        let entries = u64::from(blocks) + 1;
        let stored = entries.min(storage.len().saturating_sub(OFFSETS).div_ceil(8));
        let mut offsets = Table::new(OFFSETS, stored, WINDOW);
        check_offsets(storage, &mut offsets, stored < entries)?;
        Ok(Self { block_len: block_len.into(), blocks: blocks.into(), offsets })
    }

    /// Below 2^55.
    pub(crate) fn virtual_size(&self) -> u64 {
        self.block_len * self.blocks
    }

    /// Each block is a step.
    pub(crate) fn max_extents(&self) -> u64 {
        self.blocks
    }

    /// `offset` is below [`virtual_size`](Self::virtual_size).
    pub(crate) fn extent_at<S: Storage>(&mut self, storage: &mut S, offset: u64) -> Result<Extent, Error> {
        let (block, within) = (offset / self.block_len, offset % self.block_len);
        let mut at = |index| -> Result<u64, Error> {
            Ok(self.offsets.from(storage, index)?.first().map_or(0, |entry| entry.value()))
        };
        let (start, end) = (at(block)?, at(block + 1)?);
        // The storage may say something else than when the offsets were checked.
        let length = end.saturating_sub(start);
        let kind = ExtentKind::Compressed { offset: start, length };
        Ok(Extent::own(offset, self.block_len - within, kind))
    }
}

fn check_header(block_len: u32, blocks: u32) -> Result<(), Error> {
    let limit = |field, message: String| Err(Error::new(ErrorKind::Limit, field, message));
    let invalid = |message: String| Err(Error::new(ErrorKind::InvalidFormat, "block_size", message));
    if !block_len.is_multiple_of(SECTOR) {
        return invalid(format!("block_size {block_len} must be a multiple of 512"));
    }
    if block_len == 0 {
        return invalid("block_size cannot be zero".into());
    }
    if block_len > BLOCK_LEN_MAX {
        return limit("block_size", format!("block_size {block_len} must be 64 MB or less"));
    }
    if blocks > BLOCKS_MAX {
        return limit("num_blocks", format!("n_blocks {blocks} must be {BLOCKS_MAX} or less"));
    }
    if (u64::from(blocks) + 1) * 8 > OFFSETS_LEN_MAX {
        let message = "image requires too many offsets, try increasing block size";
        return limit("num_blocks", message.into());
    }
    Ok(())
}

/// What must hold of the offsets; `cut` tells that there are more of them than the file holds.
fn check_offsets<S: Storage>(storage: &mut S, offsets: &mut Table<U64>, cut: bool) -> Result<(), Error> {
    let order = |index| {
        corrupt(format!("offsets not monotonically increasing at index {index}, image file is corrupt"))
    };
    let (mut index, mut last) = (0, 0);
    while index < offsets.entries() {
        let entries = offsets.from(storage, index)?;
        for entry in entries {
            let offset = entry.value();
            if offset < last {
                return Err(order(index));
            }
            if index > 0 && offset - last > COMPRESSED_LEN_MAX {
                let message =
                    format!("invalid compressed block size at index {index}, image file is corrupt");
                return Err(corrupt(message));
            }
            last = offset;
            index += 1;
        }
    }
    // What is missing reads as zero.
    match (cut, last) {
        (false, _) => Ok(()),
        (true, 0) => Err(corrupt("Offsets lie beyond the end of the file")),
        (true, _) => Err(order(index)),
    }
}

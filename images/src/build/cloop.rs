//! cloop: a disk of two compressed blocks of 64 KiB.

use super::stream;
use crate::{Field, SparseFile, be};

pub(crate) const BLOCK_SIZE: Field = be(128, 4);
pub(crate) const BLOCKS: Field = be(132, 4);
/// The offsets, one more than there are blocks.
pub(crate) const OFFSETS: u64 = 136;

pub(crate) fn image() -> SparseFile {
    let block = stream::zlib(&[7; 65536]);
    let (first, length) = (OFFSETS + 24, block.len() as u64);
    SparseFile::from("#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n")
        .set(BLOCK_SIZE, 65536)
        .set(BLOCKS, 2)
        .set(be(OFFSETS, 8), first)
        .set(be(OFFSETS + 8, 8), first + length)
        .set(be(OFFSETS + 16, 8), first + 2 * length)
        .put(first, block.repeat(2))
}

//! VDI: a disk of 4 MiB, whose first block is there.

use crate::{Field, SparseFile, le};

pub(crate) const VERSION: Field = le(0x44, 4);
pub(crate) const TYPE: Field = le(0x4c, 4);
pub(crate) const MAP_OFFSET: Field = le(0x154, 4);
pub(crate) const DATA_OFFSET: Field = le(0x158, 4);
pub(crate) const SECTOR_SIZE: Field = le(0x168, 4);
pub(crate) const SIZE: Field = le(0x170, 8);
pub(crate) const BLOCK_SIZE: Field = le(0x178, 4);
pub(crate) const BLOCKS: Field = le(0x180, 4);
pub(crate) const LINK_UUID: u64 = 0x1a8;
pub(crate) const PARENT_UUID: u64 = 0x1b8;
/// The block map.
pub(crate) const MAP: u64 = 512;

pub(crate) fn image() -> SparseFile {
    SparseFile::from("<<< a disk >>>\n")
        .set(le(0x40, 4), 0xbeda_107f)
        .set(VERSION, 0x1_0001)
        .set(le(0x48, 4), 0x180)
        .set(TYPE, 1)
        .set(MAP_OFFSET, MAP)
        .set(DATA_OFFSET, 1024)
        .set(SECTOR_SIZE, 512)
        .set(SIZE, 4 << 20)
        .set(BLOCK_SIZE, 1 << 20)
        .set(BLOCKS, 4)
        .set(le(0x184, 4), 1)
        .put(0x188, [1; 32])
        .put(MAP + 4, [0xff; 12])
        .put(1024, [7; 512])
        .with_length(1024 + (1 << 20))
}

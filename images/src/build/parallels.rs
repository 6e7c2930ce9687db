//! Parallels: a disk of 4 MiB in clusters of 1 MiB, the first of which is there.

use crate::{Field, SparseFile, le};

pub(crate) const VERSION: Field = le(16, 4);
pub(crate) const TRACKS: Field = le(28, 4);
pub(crate) const ENTRIES: Field = le(32, 4);
pub(crate) const SECTORS: Field = le(36, 8);
pub(crate) const IN_USE: Field = le(44, 4);
pub(crate) const DATA_OFFSET: Field = le(48, 4);
pub(crate) const EXTENSION: Field = le(56, 8);
/// The block allocation table.
pub(crate) const BAT: u64 = 64;

pub(crate) fn image() -> SparseFile {
    SparseFile::from("WithouFreSpacExt")
        .set(VERSION, 2)
        .set(le(20, 4), 16)
        .set(le(24, 4), 1)
        .set(TRACKS, 2048)
        .set(ENTRIES, 4)
        .set(SECTORS, 8192)
        .set(DATA_OFFSET, 2048)
        .set(le(BAT, 4), 1)
        .put(1 << 20, [7; 512])
        .with_length(2 << 20)
}

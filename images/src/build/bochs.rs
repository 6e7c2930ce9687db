//! Bochs: a growing disk of 1 MiB in extents of 64 KiB, the first of which is there.

use crate::{Field, SparseFile, le};

pub(crate) const VERSION: Field = le(64, 4);
pub(crate) const CATALOG: Field = le(72, 4);
pub(crate) const BITMAP: Field = le(76, 4);
pub(crate) const EXTENT: Field = le(80, 4);
pub(crate) const DISK: Field = le(88, 8);
/// Where the catalog is.
pub(crate) const ENTRIES: u64 = 512;

pub(crate) fn image() -> SparseFile {
    let data = ENTRIES + 64;
    SparseFile::from("Bochs Virtual HD Image")
        .put(32, "Redolog")
        .put(48, "Growing")
        .set(VERSION, 0x2_0000)
        .set(le(68, 4), ENTRIES)
        .set(CATALOG, 16)
        .set(BITMAP, 16)
        .set(EXTENT, 65536)
        .set(DISK, 1 << 20)
        .put(ENTRIES, [0xff; 64])
        .set(le(ENTRIES, 4), 0)
        .put(data, [1])
        .put(data + 512, [7; 512])
        .with_length(data + 512 + 65536)
}

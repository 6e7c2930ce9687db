//! QED: a disk of 1 MiB in clusters of 4 KiB, the first of which is there; tables of two clusters.

use crate::{Field, SparseFile, le};

pub(crate) const CLUSTER_SIZE: Field = le(4, 4);
pub(crate) const TABLE_SIZE: Field = le(8, 4);
pub(crate) const HEADER_SIZE: Field = le(12, 4);
pub(crate) const FEATURES: Field = le(16, 8);
pub(crate) const L1_OFFSET: Field = le(40, 8);
pub(crate) const SIZE: Field = le(48, 8);
pub(crate) const BACKING_OFFSET: Field = le(56, 4);
pub(crate) const BACKING_SIZE: Field = le(60, 4);
/// Where the tables are.
pub(crate) const L1: u64 = 4096;
pub(crate) const L2: u64 = 3 * 4096;

pub(crate) fn image() -> SparseFile {
    SparseFile::from(b"QED\0")
        .set(CLUSTER_SIZE, 4096)
        .set(TABLE_SIZE, 2)
        .set(HEADER_SIZE, 1)
        .set(L1_OFFSET, L1)
        .set(SIZE, 1 << 20)
        .set(le(L1, 8), L2)
        .set(le(L2, 8), 5 * 4096)
        .put(5 * 4096, [7; 512])
        .with_length(6 * 4096)
}

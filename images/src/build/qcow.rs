//! qcow, version 1: a disk of 1 MiB in clusters of 4 KiB, the first of which is there; tables of 512 entries.

use crate::{Field, SparseFile, be};

pub(crate) const BACKING_OFFSET: Field = be(8, 8);
pub(crate) const BACKING_SIZE: Field = be(16, 4);
pub(crate) const SIZE: Field = be(24, 8);
pub(crate) const CLUSTER_BITS: Field = be(32, 1);
pub(crate) const L2_BITS: Field = be(33, 1);
pub(crate) const CRYPT_METHOD: Field = be(36, 4);
pub(crate) const L1_OFFSET: Field = be(40, 8);
/// Where the tables are, and where there is nothing.
pub(crate) const L1: u64 = 4096;
pub(crate) const L2: u64 = 8192;
pub(crate) const FREE: u64 = 16384;

pub(crate) fn image() -> SparseFile {
    SparseFile::from(b"QFI\xfb\0\0\0\x01")
        .set(SIZE, 1 << 20)
        .set(CLUSTER_BITS, 12)
        .set(L2_BITS, 9)
        .set(L1_OFFSET, L1)
        .set(be(L1, 8), L2)
        .set(be(L2, 8), 12288)
        .put(12288, [7; 512])
        .with_length(FREE)
}

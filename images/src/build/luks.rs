//! LUKS, version 1: a header with one key slot in use and a payload of 1 MiB. No key opens it.

use crate::{Field, SparseFile, be};

pub(crate) const VERSION: Field = be(6, 2);
pub(crate) const PAYLOAD_OFFSET: Field = be(104, 4);
/// Of the first key slot.
pub(crate) const ITERATIONS: Field = be(212, 4);
pub(crate) const KEY_OFFSET: Field = be(248, 4);
pub(crate) const STRIPES: Field = be(252, 4);

pub(crate) fn image() -> SparseFile {
    let mut image = SparseFile::from(b"LUKS\xba\xbe\0\x01")
        .put(8, "aes")
        .put(40, "xts-plain64")
        .put(72, "sha256")
        .set(PAYLOAD_OFFSET, 4040)
        .set(be(108, 4), 64)
        .put(112, [5; 52])
        .set(be(164, 4), 1000)
        .put(168, "6f2b5a31-0d2c-4d0f-9f5e-4e1c6c1f0a11");
    for slot in 0..8 {
        let at = 208 + 48 * slot;
        let state = if slot == 0 { 0x00ac_71f3 } else { 0xdead };
        image = image
            .set(be(at, 4), state)
            .set(be(at + 4, 4), 1000)
            .put(at + 8, [9; 32])
            .set(be(at + 40, 4), 8 + 504 * slot)
            .set(be(at + 44, 4), 4000);
    }
    image.with_length((4040 << 9) + (1 << 20))
}

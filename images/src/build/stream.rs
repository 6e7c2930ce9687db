//! Compressed data, sound and not: deflate by a library, zstd by hand.

use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};

/// Best compression.
const LEVEL: u8 = 9;

/// Raw deflate of so many zeros.
pub(crate) fn deflate_zeros(length: usize) -> Vec<u8> {
    compress_to_vec(&vec![0; length], LEVEL)
}

/// Raw deflate.
pub(crate) fn deflate(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, LEVEL)
}

/// A zlib stream of so many zeros.
pub(crate) fn zlib_zeros(length: usize) -> Vec<u8> {
    compress_to_vec_zlib(&vec![0; length], LEVEL)
}

/// A zlib stream.
pub(crate) fn zlib(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec_zlib(bytes, LEVEL)
}

/// A zstd frame of blocks of one repeated byte, each of so many of them (RFC 8878, sections 3.1.1.1 and 3.1.1.2):
/// `window` is the window descriptor, `dictionary` an id of one byte.
pub(crate) fn zstd(window: u8, dictionary: Option<u8>, blocks: &[u32]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, u8::from(dictionary.is_some()), window];
    frame.extend(dictionary);
    for (index, length) in blocks.iter().enumerate() {
        let last = u32::from(index + 1 == blocks.len());
        frame.extend(&(length << 3 | 1 << 1 | last).to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

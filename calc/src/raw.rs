//! Raw images: the disk itself, in whole sectors.

use crate::Length;

/// Bytes of a raw image of a disk of `size` bytes: `size` rounded up to a sector of 512, at most 2^63.
///
/// The same for a sparse and a full image, and the same as the length of an existing raw file as a disk. As measured
/// from `qemu-img`.
///
/// ```
/// use calc::{Length, raw};
/// assert_eq!(raw::length(Length::new(1).unwrap()).bytes(), 512);
/// assert_eq!(raw::length(Length::new((1 << 63) - 1).unwrap()), Length::MAX);
/// ```
pub const fn length(size: Length) -> Length {
    size.round_up(9)
}

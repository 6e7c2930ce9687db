//! Size arithmetic of disk-image formats: how many bytes an image of a given format and geometry takes.
//!
//! Pure functions over numbers. Nothing here reads an image, allocates, or knows where a number came from. What has
//! a bounded range has a type of its own, and making a value of it is the check: past the constructors nothing
//! overflows and nothing fails, but for the sums that say so.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

mod blocks;
pub mod luks;
pub mod parallels;
pub mod qcow;
pub mod qcow2;
pub mod qed;
pub mod raw;
pub mod vdi;
pub mod vhdx;
pub mod vmdk;
pub mod vpc;

/// Length in bytes of a virtual disk or of a file: at most 2^63.
///
/// Files and disks are shorter than 2^63 bytes (`off_t` is signed); the bound is inclusive because rounding such a
/// length up to a sector or a cluster can reach it. Every sum over one length fits 64 bits with room to spare.
///
/// ```
/// use calc::Length;
/// assert_eq!(Length::new(1 << 63), Some(Length::MAX));
/// assert_eq!(Length::new((1 << 63) + 1), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Length(u64);

impl Length {
    /// The longest length: 2^63 bytes.
    pub const MAX: Self = Self(1 << 63);

    /// `bytes` as a length; `None` above 2^63.
    ///
    /// ```
    /// assert_eq!(calc::Length::new(512).map(|length| length.bytes()), Some(512));
    /// ```
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes <= Self::MAX.0 { Some(Self(bytes)) } else { None }
    }

    /// The length in bytes.
    ///
    /// ```
    /// assert_eq!(calc::Length::MAX.bytes(), 1 << 63);
    /// ```
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The length in whole sectors of 512 bytes, rounded up.
    pub(crate) const fn sectors(self) -> Self {
        self.round_up(9)
    }

    /// The length rounded up to a multiple of `2^shift`, for `shift <= 63`: 2^63 is such a multiple, so the result is
    /// a length.
    const fn round_up(self, shift: u32) -> Self {
        Self(self.0.next_multiple_of(1 << shift))
    }
}

/// An image that is being written, from the start of the disk to its end, as `qemu-img convert` does: how long its file
/// is, or its files are.
///
/// What is not written reads as zeros and takes no space that an empty image has not.
pub trait NewImage: Sized {
    /// Length of the image's disk: at least what was asked for.
    fn disk(&self) -> Length;

    /// The same image, with nothing written.
    fn empty(&self) -> Self;

    /// Writes data from byte `start` up to, not including, byte `end` of the disk. Writes come in ascending order and do
    /// not overlap.
    fn write(&mut self, start: Length, end: Length);

    /// Bytes of the file, or of all files, with what is written.
    fn length(&self) -> u64;

    /// Bytes of the file, or of all files, once the whole disk is written, from its start to its end.
    fn fully_allocated(&self) -> u64 {
        let mut full = self.empty();
        full.write(Length::default(), self.disk());
        full.length()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_never_leaves_the_range() {
        let longest_file = Length((1 << 63) - 1);
        for shift in 0..=63 {
            assert!(longest_file.round_up(shift) <= Length::MAX);
            assert_eq!(Length::MAX.round_up(shift), Length::MAX);
        }
        assert_eq!(Length(513).round_up(9), Length(1024));
    }
}

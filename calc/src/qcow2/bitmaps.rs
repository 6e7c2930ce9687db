//! The space persistent bitmaps take.

use super::ClusterSize;
use crate::Length;

/// Bytes of a bitmap directory entry before the name (qcow2 specification, "Bitmap directory"), with no extra data.
const ENTRY_BYTES: u64 = 24;

/// Bytes of the disk that one bit of a bitmap stands for: a power of two from 512 to 2 GiB.
///
/// The specification allows `granularity_bits` up to 63; the range is the one `qemu-img` reads and writes.
///
/// ```
/// use calc::qcow2::Granularity;
/// assert!(Granularity::from_bits(16).is_some());
/// assert!(Granularity::from_bits(8).is_none() && Granularity::from_bits(32).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granularity {
    bits: u32,
}

impl Granularity {
    /// The granularity `2^bits`; `None` outside 9 to 31.
    ///
    /// ```
    /// assert!(calc::qcow2::Granularity::from_bits(9).is_some());
    /// ```
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits >= 9 && bits <= 31 { Some(Self { bits }) } else { None }
    }
}

/// The bitmaps added take 2^64 bytes or more: no file holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyBitmaps;

impl core::fmt::Display for TooManyBitmaps {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("bitmaps take 2^64 bytes or more")
    }
}

impl core::error::Error for TooManyBitmaps {}

/// Sums up what copies of persistent bitmaps take in a new image, all their bits stored.
///
/// Source: qcow2 specification, "Bitmaps extension", "Bitmap directory", "Bitmap table"; as measured from `qemu-img`.
///
/// ```
/// use calc::{Length, qcow2::{BitmapSpace, ClusterSize, Granularity}};
/// let mut space = BitmapSpace::new(ClusterSize::DEFAULT);
/// assert_eq!(space.bytes(), Ok(0));
/// // 1 GiB at 64 KiB a bit is 2 KiB of bits: one cluster of bits, one of table, and one of directory for all.
/// space.add(Length::new(1 << 30).unwrap(), Granularity::from_bits(16).unwrap(), 2)?;
/// assert_eq!(space.bytes(), Ok(3 * 65536));
/// # Ok::<(), calc::qcow2::TooManyBitmaps>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BitmapSpace {
    cluster_size: ClusterSize,
    bitmaps: u64,
    directory: u64,
}

impl BitmapSpace {
    /// No bitmaps yet, for a target with clusters of `cluster_size`.
    ///
    /// ```
    /// use calc::qcow2::{BitmapSpace, ClusterSize};
    /// assert_eq!(BitmapSpace::new(ClusterSize::DEFAULT).bytes(), Ok(0));
    /// ```
    pub const fn new(cluster_size: ClusterSize) -> Self {
        Self { cluster_size, bitmaps: 0, directory: 0 }
    }

    /// Adds a bitmap over a disk of `size` bytes whose name takes `name_length` bytes: its table, its bits and its
    /// directory entry.
    ///
    /// ```
    /// use calc::{Length, qcow2::{BitmapSpace, ClusterSize, Granularity}};
    /// let mut space = BitmapSpace::new(ClusterSize::DEFAULT);
    /// space.add(Length::default(), Granularity::from_bits(9).unwrap(), 40)?;
    /// assert_eq!(space.bytes(), Ok(65536)); // an empty bitmap still has an entry
    /// # Ok::<(), calc::qcow2::TooManyBitmaps>(())
    /// ```
    pub fn add(
        &mut self,
        size: Length,
        granularity: Granularity,
        name_length: u16,
    ) -> Result<(), TooManyBitmaps> {
        // One bitmap has at most 2^63 / 2^9 / 8 = 2^51 bytes of bits: only the sums can leave 64 bits.
        let cluster = self.cluster_size.bytes();
        let bytes = size.bytes().div_ceil(1 << granularity.bits).div_ceil(8);
        let clusters = bytes.div_ceil(cluster);
        let bitmap = clusters * cluster + (clusters * 8).next_multiple_of(cluster);
        let entry = (ENTRY_BYTES + u64::from(name_length)).next_multiple_of(8);
        self.bitmaps = self.bitmaps.checked_add(bitmap).ok_or(TooManyBitmaps)?;
        self.directory = self.directory.checked_add(entry).ok_or(TooManyBitmaps)?;
        Ok(())
    }

    /// Bytes of all bitmaps and their directory, in whole clusters; 0 without any.
    ///
    /// ```
    /// use calc::{Length, qcow2::{BitmapSpace, ClusterSize, Granularity}};
    /// let mut space = BitmapSpace::new(ClusterSize::new(512).unwrap());
    /// space.add(Length::new(1 << 30).unwrap(), Granularity::from_bits(16).unwrap(), 1)?;
    /// assert_eq!(space.bytes(), Ok(2048 + 512 + 512));
    /// # Ok::<(), calc::qcow2::TooManyBitmaps>(())
    /// ```
    pub fn bytes(&self) -> Result<u64, TooManyBitmaps> {
        self.directory
            .checked_next_multiple_of(self.cluster_size.bytes())
            .and_then(|directory| directory.checked_add(self.bitmaps))
            .ok_or(TooManyBitmaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_past_64_bits_is_an_error() {
        let mut space = BitmapSpace::new(ClusterSize::DEFAULT);
        let finest = Granularity::from_bits(9).unwrap();
        let added = (0..1 << 14).try_for_each(|_| space.add(Length::MAX, finest, u16::MAX));
        assert_eq!(added, Err(TooManyBitmaps));
    }

    #[test]
    fn entries_are_padded_before_the_directory_is() {
        let mut space = BitmapSpace::new(ClusterSize::new(512).unwrap());
        for _ in 0..16 {
            space.add(Length::default(), Granularity::from_bits(16).unwrap(), 1).unwrap();
        }
        assert_eq!(space.bytes(), Ok(512));
        space.add(Length::default(), Granularity::from_bits(16).unwrap(), 1).unwrap();
        assert_eq!(space.bytes(), Ok(1024));
    }
}

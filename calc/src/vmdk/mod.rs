//! VMDK images: a sparse extent with the descriptor inside, or a descriptor and extents in files of their own.
//!
//! Source: VMware's Virtual Disk Format 5.0 for the layout; the choices are those measured from `qemu-img`.

mod descriptor;

pub use descriptor::{Adapter, Descriptor, Rewrite};

use crate::{Length, NewImage, blocks::Blocks};

const SECTOR: u64 = 512;
/// Bytes of a grain.
const GRAIN: u64 = 65536;
/// Grains that a grain table maps; its entries take 4 bytes.
const TABLE_GRAINS: u64 = 512;
/// Sectors of the header and the embedded descriptor.
const HEADER_SECTORS: u64 = 1 + 20;
/// The longest extent of a disk that is split.
const SPLIT: u64 = 2 << 30;
/// Bytes that a whole grain takes in a stream when it does not compress: a marker of 12 bytes, and what deflate needs
/// for blocks that are only stored, are more than one sector and less than two.
const STORED_GRAIN: u64 = GRAIN + SECTOR;

/// The longest disk in one sparse extent, in bytes: 256 TiB less a grain. `qemu-img` has the number of grains wrap at
/// 2^32 and makes images that do not hold their disks.
pub const MAX_SPARSE: u64 = ((1 << 32) - 1) * GRAIN;

/// How the disk is laid out in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subformat {
    /// One sparse extent.
    MonolithicSparse,
    /// One sparse extent, its grains compressed one by one.
    StreamOptimized,
    /// A descriptor, and an extent that is the disk.
    MonolithicFlat,
    /// A descriptor, and sparse extents of 2 GiB of the disk each.
    TwoGbMaxExtentSparse,
    /// A descriptor, and extents that are 2 GiB of the disk each.
    TwoGbMaxExtentFlat,
}

impl Subformat {
    /// Whether the extents are parts of the disk as they stand.
    ///
    /// ```
    /// assert!(calc::vmdk::Subformat::TwoGbMaxExtentFlat.is_flat());
    /// ```
    pub const fn is_flat(self) -> bool {
        matches!(self, Self::MonolithicFlat | Self::TwoGbMaxExtentFlat)
    }
}

/// Why there is no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Longer than [`MAX_SPARSE`], in one extent.
    TooLong,
    /// A disk without a byte: `qemu-img` makes an image with one sparse extent for it and does not open it.
    Empty(Subformat),
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong => f.write_str("The image size is too large for file format 'vmdk'"),
            Self::Empty(subformat) => write!(f, "Unsupported image type '{}'", descriptor::name(*subformat)),
        }
    }
}

impl core::error::Error for Refusal {}

/// A VMDK image that is being written. Its length is that of the descriptor and all extents together.
///
/// Grains of a stream count as if they did not compress: with data that does, the image is shorter.
///
/// ```
/// use calc::{Length, NewImage, vmdk::{Descriptor, Image, Subformat}};
/// let disk = Length::new(1 << 30).unwrap();
/// let mut image = Image::new(disk, Subformat::MonolithicSparse, Descriptor::default())?;
/// assert_eq!(image.length(), 384 * 512);
/// image.write(Length::new(5).unwrap(), Length::new(6).unwrap());
/// assert_eq!(image.length(), 384 * 512 + 65536);
/// # Ok::<(), calc::vmdk::Refusal>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Image {
    disk: Length,
    subformat: Subformat,
    descriptor: Descriptor,
    data: Blocks,
}

impl Image {
    /// The image of a disk of `size` bytes, rounded up to sectors.
    ///
    /// ```
    /// use calc::{Length, vmdk::{Descriptor, Image, MAX_SPARSE, Refusal, Subformat}};
    /// let long = Length::new(MAX_SPARSE + 1).unwrap();
    /// let of = |subformat| Image::new(long, subformat, Descriptor::default()).map(|_| ());
    /// assert_eq!(of(Subformat::StreamOptimized), Err(Refusal::TooLong));
    /// assert_eq!(of(Subformat::TwoGbMaxExtentSparse), Ok(()));
    /// ```
    pub const fn new(size: Length, subformat: Subformat, descriptor: Descriptor) -> Result<Self, Refusal> {
        let disk = size.sectors();
        if matches!(subformat, Subformat::MonolithicSparse | Subformat::StreamOptimized) {
            if disk.bytes() > MAX_SPARSE {
                return Err(Refusal::TooLong);
            }
            if disk.bytes() == 0 {
                return Err(Refusal::Empty(subformat));
            }
        }
        Ok(Self { disk, subformat, descriptor, data: Blocks::new(GRAIN) })
    }

    /// Bytes of the grains of a stream. The last grain of the disk may be less than a grain, and takes up to 64 KiB
    /// then: `qemu-img` clears a grain's place before it writes to it.
    const fn stream(&self) -> u64 {
        let whole = self.disk.bytes() / GRAIN;
        let partial = if self.data.next() > whole { 1 } else { 0 };
        (self.data.count() - partial) * STORED_GRAIN + partial * GRAIN
    }
}

impl NewImage for Image {
    fn disk(&self) -> Length {
        self.disk
    }

    fn empty(&self) -> Self {
        Self { data: self.data.empty(), ..*self }
    }

    fn write(&mut self, start: Length, end: Length) {
        self.data.write(start, end);
    }

    fn length(&self) -> u64 {
        let disk = self.disk.bytes();
        let written = self.data.count() > 0;
        let descriptor = || self.descriptor.length(self.disk, self.subformat, written);
        match self.subformat {
            Subformat::MonolithicSparse => tables(disk) + self.data.bytes(),
            Subformat::StreamOptimized => tables(disk) + self.stream(),
            Subformat::MonolithicFlat | Subformat::TwoGbMaxExtentFlat => descriptor() + disk,
            Subformat::TwoGbMaxExtentSparse => {
                let rest = match disk % SPLIT {
                    0 => 0,
                    rest => tables(rest),
                };
                descriptor() + disk / SPLIT * tables(SPLIT) + rest + self.data.bytes()
            }
        }
    }
}

/// Bytes in front of the grains of a sparse extent of so many bytes of disk: header, embedded descriptor, two grain
/// directories each with its grain tables, in whole grains.
const fn tables(disk: u64) -> u64 {
    let tables = disk.div_ceil(GRAIN).div_ceil(TABLE_GRAINS);
    let directory_sectors = (tables * 4).div_ceil(SECTOR);
    let table_sectors = tables * (TABLE_GRAINS * 4 / SECTOR);
    ((HEADER_SECTORS + 2 * (directory_sectors + table_sectors)) * SECTOR).next_multiple_of(GRAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(size: u64, subformat: Subformat) -> Image {
        Image::new(Length::new(size).unwrap(), subformat, Descriptor::default()).unwrap()
    }

    #[test]
    fn a_stream_that_does_not_compress() {
        // As measured: 64 KiB; one sector more; 1 MiB; one sector more.
        for (size, length) in
            [(65536, 131_584), (66_048, 197_120), (1 << 20, 1_122_304), ((1 << 20) + 512, 1_187_840)]
        {
            assert_eq!(image(size, Subformat::StreamOptimized).fully_allocated(), length, "{size}");
        }
    }

    #[test]
    fn the_longest_disk_does_not_overflow() {
        for subformat in
            [Subformat::MonolithicFlat, Subformat::TwoGbMaxExtentSparse, Subformat::TwoGbMaxExtentFlat]
        {
            let full = image(1 << 63, subformat).fully_allocated();
            assert!(full > 1 << 63 && full < (1 << 63) + (1 << 60), "{subformat:?}");
        }
        assert!(image(MAX_SPARSE, Subformat::StreamOptimized).fully_allocated() > MAX_SPARSE);
    }
}
